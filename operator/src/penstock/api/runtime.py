"""ClusterModelRuntime: a model server that an admin offers, as an object instead of code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from penstock.api.base import OPEN_OBJECT, ApiModel, Int32, Label, list_map, rules
from penstock.api.resource import AGE, GROUP, VERSION, Column, Resource, ResourceModel


class Protocol(StrEnum):
    """What a model server speaks."""

    OPEN_INFERENCE_V2 = "OpenInferenceV2"


class ModelLayout(StrEnum):
    """How the model lies in the pod."""

    FLAT = "flat"
    NUMERIC_VERSION = "numeric-version"


class ModelFormat(ApiModel):
    """A format that the runtime serves."""

    name: Label
    """Name of the format, as `spec.model.format` has it: `onnx`, `tensorflow`..."""
    auto_select: bool = False
    """Whether this runtime is taken for models of the format that name no runtime."""


Port = Annotated[Int32, Field(ge=1, le=65535)]


_PORTS = (
    "[self.http, has(self.grpc) ? self.grpc : -1, "
    "has(self.metrics) ? self.metrics : -2, has(self.admin) ? self.admin : -3]"
)


class Ports(ApiModel):
    """Ports of the server's container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"{_PORTS}.all(p, {_PORTS}.exists_one(q, q == p))",
                "ports must differ from each other",
            )
        )
    )

    http: Port
    """Data plane over HTTP; the probes ask it, too."""
    grpc: Port | None = None
    """Data plane over gRPC."""
    metrics: Port | None = None
    """Prometheus metrics, at /metrics; without it gates cannot measure."""
    admin: Port | None = None
    """Feedback and administration; never routed to the public."""


class TemplateMeta(ApiModel):
    """Labels and annotations of the pods."""

    labels: Annotated[Mapping[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = Field(
        default_factory=dict
    )
    """Labels; those of penstock.dev are set by the operator."""
    annotations: Annotated[Mapping[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = Field(
        default_factory=dict
    )
    """Annotations."""


_CONTAINERS = {
    "type": "array",
    "description": "Containers as in a pod; the first one is the model server.",
    "minItems": 1,
    "maxItems": 8,
    "items": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "required": ["name", "image"],
        "properties": {
            "name": {"type": "string", "description": "Name of the container.", "maxLength": 63},
            "image": {"type": "string", "description": "Image of the container.", "maxLength": 1024},
        },
    },
}

PodSpec = Annotated[
    Mapping[str, Any],
    WithJsonSchema({**OPEN_OBJECT, "required": ["containers"], "properties": {"containers": _CONTAINERS}}),
]


class PodTemplate(ApiModel):
    """The pods of this runtime, with placeholders."""

    metadata: TemplateMeta = Field(default_factory=TemplateMeta)
    """Labels and annotations of the pods."""
    spec: PodSpec
    """A pod's spec. Placeholders are replaced in its strings when a revision is first rendered:
    `$(model.name)`, `$(model.path)` (where the model lies in the pod), `$(ports.http)`, `$(ports.grpc)`,
    `$(ports.metrics)`, `$(ports.admin)`. An upper-case name such as `$(POD_IP)` is Kubernetes' own and stays
    as it is. The first container is the model server; the operator adds what fetches the model, the
    ModelDeployment's overrides and a strict securityContext."""


class RuntimeSpec(ApiModel):
    """What the runtime can do, and its pods."""

    formats: Annotated[tuple[ModelFormat, ...], Field(min_length=1, max_length=32, json_schema_extra=list_map("name"))]
    """Formats that it serves."""
    protocol: Protocol = Protocol.OPEN_INFERENCE_V2
    """What it speaks: the Open Inference Protocol, version 2."""
    model_layout: ModelLayout = ModelLayout.FLAT
    """flat: the model lies at the model path itself. numeric-version: in a folder named 1 below it."""
    ports: Ports
    """Ports of the server's container."""
    template: PodTemplate
    """The pods, with placeholders."""


class ClusterModelRuntime(ResourceModel):
    """A model server that ModelDeployments of all namespaces can use. Editing one restarts no model: a
    revision keeps the template that it was first rendered from."""

    RESOURCE: ClassVar[Resource] = Resource(
        kind="ClusterModelRuntime",
        plural="clustermodelruntimes",
        singular="clustermodelruntime",
        short_name="cmr",
        namespaced=False,
        has_status=False,
        columns=(
            Column("Format", ".spec.formats[0].name", "The first format that it serves"),
            Column("Protocol", ".spec.protocol", "What it speaks"),
            AGE,
        ),
    )

    api_version: Literal["penstock.dev/v1alpha1"] = f"{GROUP}/{VERSION}"  # type: ignore[assignment]
    kind: Literal["ClusterModelRuntime"] = "ClusterModelRuntime"
    spec: RuntimeSpec
    """What it can do, and its pods."""
