"""What a ModelDeployment may say about its pods: typed overrides, never a raw pod spec.

All of it is hashed into the revision, so nothing here may have a CRD default.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from penstock.api.base import ATOMIC, ApiModel, Int32, Int64, ObjectName, Quantity, list_map, rules

_RESOURCE_NAMES = (
    ("self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.contains('/') || k.startsWith('hugepages-'))"),
    "must name cpu, memory, ephemeral-storage, hugepages-<size>, or one with a domain like nvidia.com/gpu",
)

Quantities = Annotated[Mapping[str, Quantity], Field(max_length=16, json_schema_extra=rules(_RESOURCE_NAMES))]


class Resources(ApiModel):
    """What the model server's container needs."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                (
                    "!has(self.limits) || !has(self.requests) || self.requests.all(k, !(k in self.limits) || "
                    "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)"
                ),
                "requests must not exceed limits",
            )
        )
    )

    limits: Quantities = Field(default_factory=dict)
    """The most it may use, by resource: `{cpu: "2", memory: 4Gi, nvidia.com/gpu: 1}`."""
    requests: Quantities = Field(default_factory=dict)
    """What is set aside for it on the node; for a resource of which only the limit is named, the limit."""


class KeyRef(ApiModel):
    """One key of a Secret or ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key within it."""


class EnvSource(ApiModel):
    """Where an environment variable's value comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "valueFrom has exactly one of secretKeyRef and configMapKeyRef",
            )
        )
    )

    secret_key_ref: KeyRef | None = None
    """A key of a Secret in the same namespace, whose owner must have labelled it `penstock.dev/usable: "true"`."""
    config_map_key_ref: KeyRef | None = None
    """A key of a ConfigMap in the same namespace."""


class EnvVar(ApiModel):
    """An environment variable of the model server."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(has(self.value) && has(self.valueFrom))",
                "an environment variable has a value or a valueFrom, not both",
            )
        )
    )

    name: Annotated[
        str,
        Field(
            max_length=256,
            json_schema_extra=rules(
                (
                    "self.matches('^[A-Za-z_][A-Za-z0-9_.-]*$')",
                    "must be letters, digits, '_', '-' and '.', not beginning with a digit",
                ),
                (
                    "!self.matches('^(PENSTOCK_|PYTHON|LD_|PATH$)')",
                    "PATH and names beginning with PENSTOCK_, PYTHON or LD_ are reserved",
                ),
            ),
        ),
    ]
    """Name of the variable; `PATH` and names beginning with `PENSTOCK_`, `PYTHON` or `LD_` are reserved."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """Its value, as a string: quote numbers and booleans."""
    value_from: EnvSource | None = None
    """Take the value from a Secret or ConfigMap instead. A later change there makes no new revision."""


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """Lets the pods run on nodes with a matching taint; as in a pod."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """The taint's key; absent matches all keys, with operator Exists."""
    operator: TolerationOperator | None = None
    """Equal (when absent) compares key and value, Exists the key alone."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value, for operator Equal."""
    effect: TaintEffect | None = None
    """The taint's effect; absent matches all effects."""
    toleration_seconds: Int64 | None = None
    """For NoExecute: how many seconds the pod stays after the taint appears; absent means for ever."""


class LocalRef(ApiModel):
    """An object of the same namespace."""

    name: ObjectName
    """Name of the object."""


class Template(ApiModel):
    """Typed overrides of the pods."""

    env: Annotated[tuple[EnvVar, ...], Field(max_length=64, json_schema_extra=list_map("name"))] = ()
    """Environment variables of the model server's container."""
    node_selector: Annotated[Mapping[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = Field(
        default_factory=dict
    )
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Taints that the pods put up with."""
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Field(max_length=8, json_schema_extra=list_map("name"))] = ()
    """Secrets of the same namespace for pulling images, labelled `penstock.dev/usable: "true"` by their owner."""


class Batching(ApiModel):
    """How requests that wait for the model are run together."""

    max_size: Annotated[Int32, Field(ge=1, le=4096)] | None = None
    """Most rows of one run; absent: 32. 1 runs each request alone. Nothing ever waits for a batch to fill."""


class Serving(ApiModel):
    """How the model server works; for runtimes that take these settings."""

    threads: Annotated[Int32, Field(ge=1, le=256)] | None = None
    """Threads of one inference; absent: as many as the container has CPUs."""
    max_body_bytes: (
        Annotated[
            str,
            Field(
                max_length=32,
                json_schema_extra=rules(
                    (
                        "self.matches('^[1-9][0-9]*(Ki|Mi|Gi|Ti|k|M|G|T)?$')",
                        "must be a whole size such as 512Ki, 64Mi or 1000000",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """Largest request body that is accepted, such as `64Mi`; a larger one is answered with 413."""
    max_queue: Annotated[Int32, Field(ge=1, le=100_000)] | None = None
    """Requests that may wait for inference; beyond it they are answered with 429 and Retry-After at once."""
    batching: Batching | None = None
    """How requests that wait are run together; absent: up to 32 rows, if the model proves fit for it."""
