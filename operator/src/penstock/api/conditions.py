"""Conditions: their shape, the words used as reasons, and how a list of them changes.

`Ready` and `Available` are always there; `Reconciling` and `Stalled` only while true, as kstatus wants it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from penstock.api.base import ApiModel, Int64, Message, Timestamp, Word


class ConditionType(StrEnum):
    """The conditions of a ModelDeployment."""

    READY = "Ready"
    """The spec is what serves, whole."""
    AVAILABLE = "Available"
    """Some revision serves."""
    RECONCILING = "Reconciling"
    """Work is under way that needs no human. Absent when it is not."""
    STALLED = "Stalled"
    """Nothing moves until a human acts. Absent when it is not so."""
    MEASURED = "Measured"
    """Gates can be measured; absent where there is nothing to measure."""


class ConditionStatus(StrEnum):
    """Kubernetes' three truth values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Every reason that conditions, events, gates and histories carry."""

    # how things are
    HEALTHY = "Healthy"
    SERVING = "Serving"
    NOT_SERVING = "NotServing"
    PENDING = "Pending"
    RESOLVING = "Resolving"
    LOADING = "Loading"
    STEPPING = "Stepping"
    HOLDING = "Holding"
    PROMOTING = "Promoting"
    PAUSED = "Paused"
    RESUMED = "Resumed"
    PAUSE_STEP = "PauseStep"
    SUSPENDED = "Suspended"
    # how rollouts end
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    REJECTED = "Rejected"
    CANCELLED = "Cancelled"
    SUPERSEDED = "Superseded"
    REVERTED = "Reverted"
    # what gates found
    GATE_FAILED = "GateFailed"
    INSUFFICIENT_DATA = "InsufficientData"
    CANNOT_MEASURE = "CannotMeasure"
    MEASURED = "Measured"
    NOT_APPLICABLE = "NotApplicable"
    INCONCLUSIVE = "Inconclusive"
    NO_TRAFFIC = "NoTraffic"
    NO_FEEDBACK = "NoFeedback"
    DUPLICATE_SERIES = "DuplicateSeries"
    # the model's bytes
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    MODEL_NOT_FOUND = "ModelNotFound"
    ACCESS_DENIED = "AccessDenied"
    DIGEST_MISMATCH = "DigestMismatch"
    SOURCE_CHANGED = "SourceChanged"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    INVALID_MODEL = "InvalidModel"
    NO_SPACE = "NoSpace"
    UNSUPPORTED_SOURCE = "UnsupportedSource"
    SCHEMA_INCOMPATIBLE = "SchemaIncompatible"
    # the cluster
    UNSCHEDULABLE = "Unschedulable"
    OUT_OF_MEMORY = "OutOfMemory"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    STABLE_BROKEN = "StableBroken"
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    WEIGHT_UNREACHABLE = "WeightUnreachable"
    REFUSED_BY_CLUSTER = "RefusedByCluster"
    # the spec and its surroundings
    INVALID_SPEC = "InvalidSpec"
    NO_SUPPORTING_RUNTIME = "NoSupportingRuntime"
    INVALID_RUNTIME = "InvalidRuntime"
    SECRET_NOT_USABLE = "SecretNotUsable"  # noqa: S105
    NAME_CONFLICT = "NameConflict"
    RECOVERY_AMBIGUOUS = "RecoveryAmbiguous"
    RECOVERED = "Recovered"


class Condition(ApiModel):
    """One condition, in the form that all of Kubernetes uses."""

    type: Annotated[str, Field(max_length=316)]
    """What the condition is about: Ready, Available, Reconciling, Stalled..."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Word = ""
    """One CamelCase word saying why."""
    message: Message = ""
    """The same for people: user impact, cause with numbers, what to do."""
    last_transition_time: Timestamp | None = None
    """When `status` last changed; a new reason or message does not move it."""
    observed_generation: Int64 | None = None
    """The generation of the spec that this condition speaks of."""


def set_condition(conditions: Iterable[Condition], new: Condition) -> tuple[Condition, ...]:
    """The conditions with `new` in the place of the one of its type, or at the end.

    `new.last_transition_time` is the time now; where the status is the same as before, the old time is kept.
    """
    before = tuple(conditions)
    old = find_condition(before, new.type)
    if old is None:
        return (*before, new)
    if old.status == new.status and old.last_transition_time is not None:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return tuple(new if c.type == new.type else c for c in before)


def drop_condition(conditions: Iterable[Condition], kind: str) -> tuple[Condition, ...]:
    """The conditions without those of that type."""
    return tuple(c for c in conditions if c.type != kind)


def find_condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of that type, if there is one."""
    return next((c for c in conditions if c.type == kind), None)
