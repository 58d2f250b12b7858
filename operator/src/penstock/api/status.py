"""The status of a ModelDeployment: all the operator knows about it, written before it acts.

Every field may be absent: an empty status means that the operator has not seen the object yet, or lost it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from penstock.api.base import (
    ATOMIC,
    ApiModel,
    Int32,
    Int64,
    Message,
    ShortText,
    Timestamp,
    Word,
    list_map,
)
from penstock.api.conditions import Condition

HISTORY_LIMIT = 10
REJECTED_LIMIT = 64


class Phase(StrEnum):
    """The five words that Argo CD and people see."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"


class Stage(StrEnum):
    """Where within Progressing a rollout is."""

    RESOLVING = "Resolving"
    LOADING = "Loading"
    STEPPING = "Stepping"
    PROMOTING = "Promoting"


class Verdict(StrEnum):
    """What a gate, or all of them together, say. Only Pass moves traffic forward, only Fail back."""

    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    INSUFFICIENT_DATA = "InsufficientData"
    CANNOT_MEASURE = "CannotMeasure"


class Confirmed(StrEnum):
    """Whether the weight asked for is the weight that acts."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Outcome(StrEnum):
    """How the rollout of a revision ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    REJECTED = "Rejected"
    CANCELLED = "Cancelled"
    SUPERSEDED = "Superseded"


class RevisionStatus(ApiModel):
    """A revision that has pods."""

    revision: Word | None = None
    """Name of the revision; its objects are named `<model>-<revision>`."""
    spec_hash: Annotated[str, Field(max_length=128)] | None = None
    """Hash of the fields of the spec that make the revision."""
    uri: Annotated[str, Field(max_length=2048)] | None = None
    """Where its model came from."""
    digest: Annotated[str, Field(max_length=128)] | None = None
    """sha256 of its model's bytes; absent until the first load."""
    replicas: Int32 | None = None
    """Pods wanted for it."""
    ready: Int32 | None = None
    """Pods of it that are ready."""


class LastHealthy(ApiModel):
    """The revision to fall back on."""

    revision: Word | None = None
    """Name of the last revision that proved healthy."""


class TrafficStatus(ApiModel):
    """The canary's share of the traffic, in percent."""

    desired_weight: Int32 | None = None
    """Weight that the rollout asks for."""
    desired_since: Timestamp | None = None
    """Since when."""
    applied_weight: Int32 | None = None
    """Weight that was last written to the route."""
    observed_weight: float | None = None
    """Share that the request counters show; absent without traffic."""
    confirmed: Confirmed | None = None
    """Whether the applied weight acts: accepted by the router, shown by the traffic; Unknown without any."""
    route_generation: Int64 | None = None
    """Generation of the route that carries the applied weight."""


class Samples(ApiModel):
    """Trials counted: requests or labels."""

    canary: Int64 | None = None
    """Trials of the canary."""
    stable: Int64 | None = None
    """Trials of the stable revision in the same time."""


class LogEvidence(ApiModel):
    """Natural logarithms of the evidence, rounded; ln(1/alpha) decides, which is 3.0 for 0.05."""

    fail: float | None = None
    """Evidence that the canary is worse."""
    pass_: Annotated[float | None, Field(alias="pass")] = None
    """Evidence that the canary is not worse by the margin."""


class GateStatus(ApiModel):
    """Where a gate stands."""

    name: Word
    """Name of the gate."""
    applicable: bool | None = None
    """Whether the gate has anything to compare; one that has not is no verdict."""
    verdict: Verdict | None = None
    """Pass, Fail, InsufficientData or CannotMeasure."""
    reason: Word | None = None
    """One CamelCase word saying why."""
    message: Message | None = None
    """The same for people, with numbers."""
    samples: Samples | None = None
    """Trials counted so far."""
    log_evidence: LogEvidence | None = None
    """Evidence so far."""


GateStatuses = Annotated[tuple[GateStatus, ...], Field(max_length=16, json_schema_extra=list_map("name"))]


class AnalysisRef(ApiModel):
    """The RolloutAnalysis that holds the evidence."""

    name: Annotated[str, Field(max_length=253)] | None = None
    """Name of the RolloutAnalysis, in the same namespace."""
    seq: Int64 | None = None
    """Its `status.seq` that this status was written after."""


class RolloutStatus(ApiModel):
    """The rollout that is under way."""

    id: Word | None = None
    """Id of the rollout; feedback of its time carries it as cohort."""
    attempt: Int32 | None = None
    """Number of the attempt, from 1 on; a retry is a new one."""
    stage: Stage | None = None
    """Where within Progressing it is."""
    step_index: Int32 | None = None
    """Index of the current step, from 0 on."""
    step: Word | None = None
    """The same for people: `3/5`."""
    steps_hash: Word | None = None
    """Hash of the steps that `stepIndex` counts in."""
    started_at: Timestamp | None = None
    """When the rollout began."""
    step_started_at: Timestamp | None = None
    """When the current step took effect."""
    exposed_at: Timestamp | None = None
    """When the canary first got traffic."""
    deadline_at: Timestamp | None = None
    """When `onInconclusive` applies."""
    verdict: Verdict | None = None
    """What the required gates say together."""
    analysis_ref: AnalysisRef | None = None
    """Where the evidence is."""
    gates: GateStatuses = ()
    """Where each gate stands."""
    blind_since: Timestamp | None = None
    """Since when nothing can be measured; absent when it can."""
    held_since: Timestamp | None = None
    """Since when a human holds the rollout (paused, no replicas, a pause step): its clocks stand still; else absent."""
    reverting: bool | None = None
    """Whether this goes straight to a revision that was healthy lately, past steps and gates."""
    reported_at: Timestamp | None = None
    """When the gates' numbers here were last brought up to date; the RolloutAnalysis is always newer."""


class Retiring(ApiModel):
    """A revision that serves no more and whose pods are kept for a while."""

    revision: Word | None = None
    """Name of the revision."""
    until: Timestamp | None = None
    """When its pods go."""
    routed: bool | None = None
    """Whether the route may have led to it: then its pods also wait until the router confirms that it does not."""


class Rejection(ApiModel):
    """A spec that was tried and refused; it is not tried again unless a retry is asked for."""

    spec_hash: Annotated[str, Field(max_length=128)] | None = None
    """Hash of the refused spec."""
    revision: Word | None = None
    """Name of its revision."""
    rollout_id: Word | None = None
    """The rollout that refused it."""
    gate: Word | None = None
    """The gate that failed, if one did."""
    reason: Word | None = None
    """One CamelCase word saying why."""
    message: Message | None = None
    """The same for people, with numbers."""
    at: Timestamp | None = None
    """When."""


class HistoryEntry(ApiModel):
    """The end of one rollout."""

    revision: Word | None = None
    """Revision that was rolled out."""
    digest: Annotated[str, Field(max_length=128)] | None = None
    """sha256 of its model's bytes."""
    outcome: Outcome | None = None
    """Promoted, RolledBack, Rejected (it never served), Cancelled or Superseded."""
    reason: Word | None = None
    """One CamelCase word saying why."""
    at: Timestamp | None = None
    """When."""


class Status(ApiModel):
    """What is."""

    observed_generation: Int64 | None = None
    """Generation of the spec that this status speaks of."""
    seq: Int64 | None = None
    """Counts the writes of this status."""
    phase: Phase | None = None
    """Pending, Progressing, Paused, Healthy or Degraded."""
    message: Message | None = None
    """What is going on: user impact, cause with numbers, what to do."""
    ready: Word | None = None
    """Ready pods of those wanted, `4/4`."""
    replicas: Int32 | None = None
    """Pods of the stable revision, for the scale subresource."""
    selector: ShortText | None = None
    """Label selector of the stable revision's pods, for the scale subresource."""
    url: Annotated[str, Field(max_length=2048)] | None = None
    """Where callers within the cluster reach the model."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=list_map("type"))] = ()
    """Ready and Available always; Reconciling and Stalled only while true."""
    stable: RevisionStatus | None = None
    """The revision that serves."""
    canary: RevisionStatus | None = None
    """The revision on trial."""
    last_healthy: LastHealthy | None = None
    """The revision to fall back on."""
    traffic: TrafficStatus | None = None
    """The canary's share of the traffic."""
    rollout: RolloutStatus | None = None
    """The rollout that is under way."""
    retiring: Annotated[tuple[Retiring, ...], Field(max_length=HISTORY_LIMIT, json_schema_extra=ATOMIC)] = ()
    """Revisions whose pods are still there though they serve no more."""
    rejected: Annotated[tuple[Rejection, ...], Field(max_length=REJECTED_LIMIT, json_schema_extra=ATOMIC)] = ()
    """Specs that were refused; those that the spec still names are never dropped."""
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=HISTORY_LIMIT, json_schema_extra=ATOMIC)] = ()
    """The last 10 rollouts, the latest first."""
