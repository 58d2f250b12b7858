"""ModelDeployment: what a user writes to have a model served and its new versions rolled out with care."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from penstock.api.base import ApiModel, Digest, Int32, Label, ObjectName, PositiveDuration, rules
from penstock.api.pod import LocalRef, Resources, Serving, Template
from penstock.api.resource import AGE, GROUP, VERSION, Column, Resource, ResourceModel
from penstock.api.rollout import Rollout
from penstock.api.status import Status
from penstock.api.traffic import Traffic

SCHEMES = ("http", "https", "s3", "configmap", "pvc")
"""Model sources that can be fetched."""

_URI_RULES = rules(
    (
        "self.matches('^(https?|s3|configmap|pvc)://')",
        "must begin with one of http://, https://, s3://, configmap://, pvc://",
    ),
    (
        "!self.matches('^https?://') || self.matches('^https?://[^/?#]+')",
        "must name a host: https://host/path",
    ),
    (
        "!self.startsWith('s3://') || self.matches('^s3://[^/]+/.+')",
        "must be s3://bucket/key",
    ),
    (
        "!self.startsWith('configmap://') || self.matches('^configmap://[a-z0-9.-]+/[-._a-zA-Z0-9]+$')",
        "must be configmap://name/key, a ConfigMap of the same namespace",
    ),
    (
        "!self.startsWith('pvc://') || self.matches('^pvc://[a-z0-9.-]+/.+')",
        "must be pvc://claim/path, a PersistentVolumeClaim of the same namespace",
    ),
    (
        "!self.matches('/[.][.](/|$)')",
        "must not climb up with '..'",
    ),
)


class Credentials(ApiModel):
    """What the source asks for."""

    secret_ref: LocalRef
    """A Secret of the same namespace. For s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where needed,
    AWS_ENDPOINT_URL and AWS_REGION."""


class ModelSource(ApiModel):
    """The model's bytes."""

    # A rule of the whole object, whose value the message does not repeat as it does that of a string.
    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.uri.matches('^https?://[^/]*@')",
                "uri must hold no user name or password: put them in a Secret, named in credentials.secretRef",
            )
        )
    )

    uri: Annotated[str, Field(min_length=1, max_length=2048, json_schema_extra=_URI_RULES)]
    """Where the model is: `https://host/path`, `s3://bucket/key`, `configmap://name/key`, `pvc://claim/path`."""
    format: Label | None = None
    """Format of the model, one that a runtime declares: `onnx`... Absent: `onnx`."""
    digest: Digest | None = None
    """Expected sha256 of the bytes. Absent: the first load of a revision fixes it, and every later pod must
    see the same."""
    credentials: Credentials | None = None
    """What the source asks for."""


class Decision(StrEnum):
    """How a prediction is read off an output."""

    ARGMAX = "argmax"


class Feedback(ApiModel):
    """How labels that come back are compared with what was predicted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.decision), has(self.threshold), has(self.tolerance)].filter(g, g).size() <= 1",
                "feedback has at most one of decision, threshold, tolerance",
            )
        )
    )

    output: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The model's output that holds the prediction. Absent: `label`, else the first output of text or integers, else
    the first one."""
    decision: Decision | None = None
    """argmax: the prediction is the index of the highest score. It is the default for scores."""
    threshold: float | None = None
    """For a binary score: the prediction is 1 from this score on, else 0."""
    tolerance: Annotated[float, Field(ge=0)] | None = None
    """For regression: a prediction is correct when it differs from the label by no more than this."""
    window: PositiveDuration = PositiveDuration("7d")
    """How long after a prediction its label is accepted; a later one counts as expired."""


class Spec(ApiModel):
    """What is wanted."""

    model: ModelSource
    """The model to serve."""
    runtime: ObjectName | None = None
    """Name of the ClusterModelRuntime that serves it. Absent: one that selects itself for the format."""
    replicas: Annotated[Int32, Field(ge=0, le=1000)] = 1
    """Pods of the stable revision; 0 suspends serving."""
    resources: Resources = Field(default_factory=Resources)
    """What each model server's container needs."""
    template: Template = Field(default_factory=Template)
    """Overrides of the pods."""
    serving: Serving = Field(default_factory=Serving)
    """How the model server works."""
    feedback: Feedback = Feedback()
    """How labels are compared with predictions."""
    paused: bool = False
    """Freeze the rollout where it is; what serves goes on serving."""
    rollout: Rollout = Rollout()
    """How a new revision takes over."""
    traffic: Traffic = Traffic()
    """How requests reach the model."""


_NAME_RULES = rules(
    (
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "must be lower-case letters, digits and '-', from a letter to a letter or digit",
    ),
    (
        "self.size() <= 40",
        "must have at most 40 characters, since the names of its revisions' objects are longer",
    ),
    (
        "!self.endsWith('-stable') && !self.endsWith('-canary')",
        "must not end in -stable or -canary: Services of those names are made for it",
    ),
)


class ModelDeployment(ResourceModel):
    """A model that is served, and how its new versions take over: step by step, as the evidence allows."""

    RESOURCE: ClassVar[Resource] = Resource(
        kind="ModelDeployment",
        plural="modeldeployments",
        singular="modeldeployment",
        short_name="mdep",
        name_rules=_NAME_RULES,
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
        columns=(
            Column("Phase", ".status.phase", "Pending, Progressing, Paused, Healthy or Degraded"),
            Column("Stable", ".status.stable.revision", "Revision that serves"),
            Column("Canary", ".status.canary.revision", "Revision that is on trial"),
            Column("Weight", ".status.traffic.appliedWeight", "Percent of traffic on the canary", "integer"),
            Column("Step", ".status.rollout.step", "Step of the rollout"),
            Column("Verdict", ".status.rollout.verdict", "What the gates say so far"),
            Column("Ready", ".status.ready", "Ready pods of those wanted"),
            AGE,
            Column("Message", ".status.message", "What is going on, in words", priority=1),
        ),
    )

    api_version: Literal["penstock.dev/v1alpha1"] = f"{GROUP}/{VERSION}"  # type: ignore[assignment]
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    spec: Spec
    """What is wanted."""
    status: Status = Field(default_factory=Status)
    """What is."""
