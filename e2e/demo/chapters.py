"""The story as data: which version is applied when, and what must then be seen in the cluster's own objects."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.conditions import Reason
from penstock.api.status import Outcome, Phase


@dataclass(frozen=True, slots=True)
class Expectation:
    """How a chapter must end."""

    outcome: Outcome
    phase: Phase
    stable: str
    """Version that serves at the end."""
    reasons: frozenset[str]
    """Reasons of which the history's entry must carry one."""
    gate: str = ""
    """Gate that must have refused it; empty for none."""
    weights: tuple[int, ...] = ()
    """Weights that the route must have had, in this order."""
    is_measured: bool = False
    """Whether a RolloutAnalysis must tell the same end."""
    gets_requests: bool = True
    """Whether the version may, and must, have answered requests."""
    within_seconds: float = 0.0
    """Time that it may take; 0 for any."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One `kubectl apply`. `number` is the outcome that it belongs to."""

    number: int
    version: str
    title: str
    moral: str
    """The end in a few words, for the summary."""
    expect: Expectation


STEPS = (5, 25, 50)

FIRST = Chapter(
    1,
    "v1",
    "v1, a random forest, is applied",
    "Healthy",
    Expectation(Outcome.PROMOTED, Phase.HEALTHY, "v1", frozenset({Reason.PROMOTED}), gets_requests=False),
)

GOOD = Chapter(
    3,
    "v2",
    "v2, a support vector machine, as good as v1",
    "promoted on evidence",
    Expectation(
        Outcome.PROMOTED,
        Phase.HEALTHY,
        "v2",
        frozenset({Reason.PROMOTED}),
        weights=STEPS,
        is_measured=True,
    ),
)


def _rolled_back(number: int, version: str, title: str, gate: str) -> Chapter:
    expect = Expectation(
        Outcome.ROLLED_BACK,
        Phase.DEGRADED,
        "v2",
        frozenset({Reason.GATE_FAILED}),
        gate=gate,
        weights=STEPS[:1],
        is_measured=True,
    )
    return Chapter(number, version, title, f"rolled back by {gate}", expect)


def _rejected(version: str, title: str, moral: str, *reasons: Reason) -> Chapter:
    expect = Expectation(Outcome.REJECTED, Phase.DEGRADED, "v2", frozenset(reasons), gets_requests=False)
    return Chapter(6, version, title, moral, expect)


SCRAMBLED = _rolled_back(4, "v3", "v3, trained on scrambled labels", "accuracy")
SLOW = _rolled_back(5, "v4", "v4, right but slow: a huge ensemble", "latency")
CORRUPT = _rejected(
    "v5", "v5, a corrupt file", "rejected before any request", Reason.MODEL_LOAD_FAILED, Reason.INVALID_MODEL
)
RENAMED = _rejected("v6", "v6, whose input has another name", "stopped before any request", Reason.SCHEMA_INCOMPATIBLE)
BACK = Chapter(
    7,
    "v1",
    "git revert: v1 again, healthy a while ago",
    "back at 100 % at once, no steps",
    Expectation(Outcome.PROMOTED, Phase.HEALTHY, "v1", frozenset({Reason.REVERTED}), within_seconds=30),
)

AFTER_TRAFFIC = (GOOD, SCRAMBLED, SLOW, CORRUPT, RENAMED, BACK)
"""The chapters that need traffic, in order; chapter 2 is the traffic itself, chapter 8 the summary."""
