"""The evidence of one rollout as plain immutable data: what is kept between two looks at the counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from penstock.core.gates.grid import Bound
from penstock.core.gates.latency import LatencyState
from penstock.core.gates.twosample import TwoSampleState

Arm = Literal["stable", "canary"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last scrape used of one pod.

    at: its sample time. outcomes: requests by outcome. buckets: cumulative counts at the watched bounds, None while
    they have to be based anew. labels: stable correct, stable incorrect, canary correct, canary incorrect, of the
    rollout's cohort. warm: past its cold start.
    """

    arm: Arm
    at: float
    outcomes: Mapping[str, int]
    buckets: tuple[int, ...] | None = None
    labels: tuple[int, int, int, int] = (0, 0, 0, 0)
    warm: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one arm within an open block. buckets: increments at the watched bounds. until: last sample time."""

    n: int = 0
    bad: int = 0
    buckets: tuple[int, ...] = ()
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Lane:
    """An open block: since when, its pods with the sample time each entered at, and both arms' counts.

    armed: while none is open, the sample time since which all pods have to be scraped before one is.
    """

    opened: float | None = None
    members: Mapping[str, float] = field(default_factory=dict)
    canary: Tally = field(default_factory=Tally)
    stable: Tally = field(default_factory=Tally)
    armed: float | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """A stable pod's cumulative histogram, by grid index, at its sample time `at`: latency of late counts from here."""

    pod: str
    at: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GateRecord:
    """One gate: its e-processes (None before its first block), what went in, and between which sample times.

    slow: for latency, by bound: (stable above b, canary above r_fail b, canary above r_pass b), of the same requests
    as canary_n and stable_n.
    """

    name: str
    key: str
    state: TwoSampleState | LatencyState | None = None
    canary_n: int = 0
    canary_bad: int = 0
    stable_n: int = 0
    stable_bad: int = 0
    slow: tuple[tuple[int, int, int], ...] = ()
    first_at: float | None = None
    last_at: float | None = None
    blocks: int = 0

    @property
    def log_e_fail(self) -> float:
        """ln of the current evidence that the canary is worse."""
        return self.state.log_e_fail if self.state else 0.0

    @property
    def peak_pass(self) -> float:
        """ln of the highest evidence so far that the canary is not worse by the margin."""
        return self.state.peak_pass if self.state else 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a signal cannot be measured, and since when (wall clock, unix seconds)."""

    signal: str
    reason: str
    since: float
    detail: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The rollout's FAIL, latched: the gate with the largest term, the sample time, ln of the weighted sum."""

    gate: str
    at: float
    log_e: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a rollout; made by `start`, `update`, `blind` and `mark_weight` only.

    blocks: closed blocks so far. milestones: counts all that later samples cannot tell again, so when to persist.
    newest: latest sample time used. resumed: by arm, the first sample time after a gap of all its pods. shown: which
    arm has ever exposed which metric, as "arm metric". share: canary and all requests since the weight was last
    marked, over synchronous windows. weight in percent, since weight_at;
    exposed_at: when it was first above 0. cut_at: a changed weight still to be met in the samples; no window begins
    before barrier. baseline: only until bounds are
    chosen. gap: the last stretch of sample time discarded for being too long. partial: an arm has more than
    64 pods now, of which a fixed subset is read.
    """

    gates: tuple[GateRecord, ...] = ()
    cursors: Mapping[str, Cursor] = field(default_factory=dict)
    traffic: Lane = field(default_factory=Lane)
    labels: Lane = field(default_factory=Lane)
    requests: Lane = field(default_factory=Lane)
    bounds: tuple[Bound, ...] = ()
    watch: tuple[int, ...] = ()
    bounds_settled: bool = False
    baseline: Baseline | None = None
    error_history: tuple[int, int] = (0, 0)
    label_history: tuple[int, int] = (0, 0)
    weight: float | None = None
    weight_at: float | None = None
    exposed_at: float | None = None
    cut_at: float | None = None
    barrier: float | None = None
    blocks_at_weight: int = 0
    share: tuple[int, int] = (0, 0)
    newest: float | None = None
    resumed: Mapping[Arm, float] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    blind_since: float | None = None
    blind_reason: str = ""
    faults: tuple[Fault, ...] = ()
    gap: tuple[float, float] | None = None
    failure: Failure | None = None
    blocks: int = 0
    milestones: int = 0
    partial: bool = False
