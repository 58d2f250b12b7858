"""How traffic moves onto a new revision: the steps, the gates that judge it, and what happens in doubt."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from penstock.api.base import ATOMIC, ApiModel, Duration, Int32, Label, PositiveDuration, list_map, rules


class OnInconclusive(StrEnum):
    """What to do when maxDuration is over and the gates have not decided."""

    HOLD = "Hold"
    ROLLBACK = "Rollback"
    PROMOTE = "Promote"


class OnSchemaChange(StrEnum):
    """What to do with a model whose inputs or outputs old clients cannot use."""

    BLOCK = "Block"
    ALLOW = "Allow"


class Signal(StrEnum):
    """What a gate compares."""

    ACCURACY = "accuracy"
    ERRORS = "errors"
    LATENCY = "latency"


# In CEL, since the API server rounds a schema's bounds to whole numbers when it reports them.
Fraction = Annotated[
    float,
    Field(
        json_schema_extra=rules(
            ("self > 0.0 && self <= 0.5", "must be a fraction above 0 and at most 0.5, such as 0.02 for 2 %")
        )
    ),
]

Ratio = Annotated[
    float,
    Field(
        json_schema_extra=rules(
            ("self > 1.0 && self <= 10.0", "must be a ratio above 1 and at most 10, such as 1.2 for 20 % more")
        )
    ),
]


class Pause(ApiModel):
    """Nothing: a pause has no settings."""


class Step(ApiModel):
    """One step: exactly one of `weight`, `hold`, `pause`."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.weight), has(self.hold), has(self.pause)].exists_one(given, given)",
                "a step is exactly one of {weight: 1..99}, {hold: <duration>}, {pause: {}}",
            )
        )
    )

    weight: (
        Annotated[
            Int32,
            Field(
                json_schema_extra=rules(
                    (
                        "self >= 1 && self <= 99",
                        "must be 1 to 99 (percent): 100 % follows by itself when all required gates pass",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """Percent of the traffic for the new revision, 1 to 99."""
    hold: PositiveDuration | None = None
    """Stay at the weight for this time."""
    pause: Pause | None = None
    """Stay until a human takes this step out of the list; the rollout then goes on behind it."""


class WarmUp(ApiModel):
    """When a fresh pod begins to count, since cold caches are no fault of the model: once it has both."""

    requests: Annotated[Int32, Field(ge=0, le=1_000_000)] = 100
    """Requests it must have served; with little traffic, 5 minutes of being ready are enough."""
    period: Duration = Duration("60s")
    """Time it must have been ready."""


class Analysis(ApiModel):
    """How the gates measure."""

    block: PositiveDuration = PositiveDuration("60s")
    """Counts of this much time are judged together; well above the scrape interval evens out its skew."""
    soak: Duration = Duration("10m")
    """Time the new revision must have served under watch before the gates may pass it."""
    warm_up: WarmUp = WarmUp()
    """When a fresh pod begins to count."""
    alpha: Fraction = 0.05
    """Highest chance, over the whole rollout and however often looked at, of rolling back a revision that is
    not worse."""
    beta: Fraction = 0.05
    """Highest chance, per gate, of passing a revision that is worse by the gate's margin."""


_KNOBS = rules(
    ("self.signal == 'accuracy' || !has(self.maxDrop)", "maxDrop belongs to signal accuracy only"),
    ("self.signal == 'errors' || !has(self.maxIncrease)", "maxIncrease belongs to signal errors only"),
    ("self.signal == 'latency' || !has(self.maxRatio)", "maxRatio belongs to signal latency only"),
)


class Compare(ApiModel):
    """Compares the new revision with the stable one, on traffic of the same time."""

    model_config = ConfigDict(json_schema_extra=_KNOBS)

    signal: Signal
    """accuracy (needs labels as feedback), errors (all answers but ok), or latency (of ok answers)."""
    max_drop: Fraction | None = None
    """For accuracy: the drop that must be ruled out, as a fraction; 0.02 is 95 % to 93 %. Absent: 0.02."""
    max_increase: Fraction | None = None
    """For errors: the increase of the error rate that must be ruled out, as a fraction. Absent: 0.005."""
    max_ratio: Ratio | None = None
    """For latency: the ratio to stable's latency that must be ruled out, 1.2 is 20 % slower. Absent: 1.2."""

    @property
    def margin(self) -> float:
        """The margin of the signal, given or default: a fraction, or a ratio for latency."""
        match self.signal:
            case Signal.ACCURACY:
                return 0.02 if self.max_drop is None else self.max_drop
            case Signal.ERRORS:
                return 0.005 if self.max_increase is None else self.max_increase
            case Signal.LATENCY:
                return 1.2 if self.max_ratio is None else self.max_ratio


class Gate(ApiModel):
    """One question that the new revision must answer."""

    name: Label
    """Name of the gate, unique in the list; status and messages use it."""
    required: bool = True
    """Whether its Pass is needed. One that is not required holds nothing back, yet strong evidence of harm counts."""
    compare: Compare
    """Compare with the stable revision."""


DEFAULT_GATES = (
    Gate(name="errors", compare=Compare(signal=Signal.ERRORS)),
    Gate(name="latency", compare=Compare(signal=Signal.LATENCY)),
)
"""The gates of a rollout that names none."""

_RISING = rules(
    (
        (
            "self.filter(s, has(s.weight)).map(s, s.weight).isSorted() && self.filter(s, has(s.weight))"
            ".all(s, self.exists_one(t, has(t.weight) && t.weight == s.weight))"
        ),
        "the weights of the steps must rise, each higher than the one before",
    )
)

# Each has bounds of its own to be kept for each pod: the evidence is one object of at most 64 KiB.
_FEW_LATENCY_GATES = rules(
    ("self.filter(g, g.compare.signal == 'latency').size() <= 4", "at most 4 gates may compare latency")
)


class Rollout(ApiModel):
    """How a new revision takes over."""

    steps: Annotated[tuple[Step, ...], Field(max_length=20, json_schema_extra={**ATOMIC, **_RISING})] | None = None
    """What happens in which order; 100 % follows by itself. Absent: weights 5, 25 and 50, of which router
    Replicas leaves out those that the number of replicas cannot make. An empty list: straight to 100 % as
    soon as it is ready, without asking any gate."""
    analysis: Analysis = Analysis()
    """How the gates measure."""
    max_duration: PositiveDuration = PositiveDuration("24h")
    """Time a rollout may take before `onInconclusive` applies; the clock stops while nothing can be measured."""
    on_inconclusive: OnInconclusive = OnInconclusive.HOLD
    """After `maxDuration` without a decision: Hold the weight and tell a human, Rollback, or Promote."""
    on_schema_change: OnSchemaChange = OnSchemaChange.BLOCK
    """With inputs or outputs that old clients cannot use: Block the model before any traffic, or Allow it."""
    rollback_window: Duration = Duration("7d")
    """A spec that was Healthy within this time goes straight to 100 % once ready, past steps and gates."""
    scale_down_delay: Duration = Duration("30m")
    """How long the old revision's pods are kept after a promotion, so that going back takes seconds."""
    progress_deadline: PositiveDuration = PositiveDuration("10m")
    """Time a revision may take to become ready; one that takes longer is rejected."""
    revision_history_limit: Annotated[Int32, Field(ge=0, le=100)] = 10
    """Revisions kept, without pods, beyond those in use."""
    gates: Annotated[
        tuple[Gate, ...], Field(max_length=16, json_schema_extra={**list_map("name"), **_FEW_LATENCY_GATES})
    ] = ()
    """What the new revision must prove; at most 4 of them on latency. None given: errors and latency with their
    defaults."""

    def effective_gates(self) -> tuple[Gate, ...]:
        """The gates given, or the default ones."""
        return self.gates or DEFAULT_GATES
