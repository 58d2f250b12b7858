"""RolloutAnalysis: the evidence of one attempt at a rollout; once finished, the record of its audit."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from penstock.api.base import OPEN_OBJECT, ApiModel, Int32, Int64, Message, Timestamp, Word, list_map
from penstock.api.resource import AGE, GROUP, VERSION, Column, Resource, ResourceModel
from penstock.api.rollout import Signal
from penstock.api.status import GateStatuses, Verdict


class AnalysisPhase(StrEnum):
    """How far the analysis is."""

    RUNNING = "Running"
    PASSED = "Passed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    INCONCLUSIVE = "Inconclusive"


class AnalysedGate(ApiModel):
    """A gate as it was when the analysis began."""

    name: Word
    """Name of the gate."""
    signal: Signal
    """What it compares."""
    margin: float
    """The margin that must be ruled out: a fraction, or a ratio for latency."""
    required: bool = True
    """Whether its Pass is needed."""


OpenObject = Annotated[Mapping[str, Any], WithJsonSchema(OPEN_OBJECT)]


class AnalysisSpec(ApiModel):
    """What is measured."""

    model_deployment: Annotated[str, Field(max_length=63)]
    """Name of the ModelDeployment, in the same namespace."""
    rollout: Word
    """Id of the rollout."""
    attempt: Int32 = 1
    """Number of the attempt."""
    stable: Word | None = None
    """Revision that is compared with."""
    canary: Word
    """Revision on trial."""
    started_at: Timestamp | None = None
    """When the measuring began."""
    gates: Annotated[tuple[AnalysedGate, ...], Field(max_length=16, json_schema_extra=list_map("name"))] = ()
    """The gates."""
    plan: OpenObject | None = None
    """The measuring plan, fixed at the start: bounds, blocks, levels. Written by the operator for itself."""


class AnalysisStatus(ApiModel):
    """What was measured."""

    seq: Int64 | None = None
    """Counts the blocks written; the ModelDeployment's status names it."""
    phase: AnalysisPhase | None = None
    """Running, Passed, Failed, Cancelled or Inconclusive."""
    verdict: Verdict | None = None
    """What the required gates say together."""
    message: Message | None = None
    """The same for people, with numbers."""
    gates: GateStatuses = ()
    """Where each gate stands."""
    evidence: OpenObject | None = None
    """Cursors of the counters and state of the tests, in compact form. Written by the operator for itself."""
    started_at: Timestamp | None = None
    """When the measuring began."""
    finished_at: Timestamp | None = None
    """When it was decided."""


class RolloutAnalysis(ResourceModel):
    """The evidence of one attempt at a rollout. Made and written by the operator; kept with its revision."""

    RESOURCE: ClassVar[Resource] = Resource(
        kind="RolloutAnalysis",
        plural="rolloutanalyses",
        singular="rolloutanalysis",
        short_name="mdan",
        columns=(
            Column("Model", ".spec.modelDeployment", "ModelDeployment that is rolled out"),
            Column("Canary", ".spec.canary", "Revision on trial"),
            Column("Phase", ".status.phase", "How far the analysis is"),
            Column("Verdict", ".status.verdict", "What the gates say"),
            AGE,
            Column("Message", ".status.message", "The same in words", priority=1),
        ),
    )

    api_version: Literal["penstock.dev/v1alpha1"] = f"{GROUP}/{VERSION}"  # type: ignore[assignment]
    kind: Literal["RolloutAnalysis"] = "RolloutAnalysis"
    spec: AnalysisSpec
    """What is measured."""
    status: AnalysisStatus = Field(default_factory=AnalysisStatus)
    """What was measured."""
