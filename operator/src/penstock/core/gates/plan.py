"""What a rollout measures, fixed at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log
from types import MappingProxyType
from typing import Literal

Signal = Literal["accuracy", "errors", "latency"]
WEIGHTS: Mapping[str, float] = MappingProxyType({"accuracy": 0.4, "errors": 0.3, "latency": 0.3})
GROWTH = 1.1


@dataclass(frozen=True, slots=True)
class Comparison:
    """One gate of the rollout: the canary's signal against stable's.

    margin: maxDrop (accuracy), maxIncrease (errors), both absolute differences of rates, or maxRatio (latency,
    above 1; snapped to whole steps of the 1.1 grid). tolerance: for latency the ratio up to which a slower canary
    is never failed (1.1, snapped likewise and kept below maxRatio); 0 otherwise. required: False = does not hold
    a promotion back, though strong evidence of harm still counts. phi: design effect from an A/A comparison; None =
    unknown, taken as 1 and said so.
    """

    name: str
    signal: Signal
    margin: float
    tolerance: float = 0.0
    required: bool = True
    phi: float | None = None

    def __post_init__(self) -> None:
        if self.signal == "latency":
            if not self.margin > 1:
                raise ValueError(f"gate {self.name}: maxRatio is {self.margin}; need more than 1, such as 1.2")
        elif not 0 < self.margin < 1:
            raise ValueError(f"gate {self.name}: margin is {self.margin}; need 0 < margin < 1, such as 0.02")

    @property
    def key(self) -> str:
        """Identity of the statistics: a gate whose key changes starts anew."""
        return f"{self.signal}/{self.margin!r}/{self.tolerance!r}/{self.phi!r}"

    @property
    def pass_steps(self) -> int:
        """Grid steps of 1.1 in maxRatio, at least 1 (latency only)."""
        return max(1, round(log(self.margin) / log(GROWTH)))

    @property
    def fail_steps(self) -> int:
        """Grid steps of 1.1 in the tolerance, below `pass_steps` (latency only)."""
        wanted = round(log(self.tolerance) / log(GROWTH)) if self.tolerance > 1 else 0
        return min(wanted, self.pass_steps - 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `update` and `judge` need to know of a rollout besides its samples.

    stable, canary: revision names. cohort: the rollout's id as in the feedback label `cohort`. alpha: chance that the
    whole rollout is failed without cause; beta: chance per gate of a wrong PASS at its margin. block_seconds: least
    length of a block of requests, feedback_block_seconds: of labels and of the traffic share. min_canary_trials:
    below it no FAIL acts. soak_seconds: wall-clock time since the canary first got weight before PASS may act.
    cold_start_requests, cold_start_seconds: a pod is measured once it has served that many requests and has been
    Ready, and for the canary exposed, that long (both 0: from birth); cold_start_max_seconds: at low traffic, that
    long is enough.
    started_at: unix seconds of the rollout's start. latency_bounds: seconds, fixed by the caller; empty = chosen
    from stable's own histogram.
    """

    stable: str
    canary: str
    cohort: str
    comparisons: tuple[Comparison, ...]
    started_at: float
    alpha: float = 0.05
    beta: float = 0.05
    block_seconds: float = 60.0
    feedback_block_seconds: float = 15.0
    min_canary_trials: int = 20
    soak_seconds: float = 600.0
    cold_start_requests: int = 100
    cold_start_seconds: float = 60.0
    cold_start_max_seconds: float = 300.0
    latency_bounds: tuple[float, ...] = field(default=())

    @property
    def born_warm(self) -> bool:
        """Whether cold starts are not excluded at all."""
        return self.cold_start_requests <= 0 and self.cold_start_seconds <= 0

    @property
    def weights(self) -> tuple[float, ...]:
        """Share of alpha of each comparison, in their order; sums to 1. Gates of one signal share its part."""
        counts = [sum(o.signal == c.signal for o in self.comparisons) for c in self.comparisons]
        raw = [WEIGHTS[c.signal] / n for c, n in zip(self.comparisons, counts, strict=True)]
        return tuple(w / sum(raw) for w in raw)

    @property
    def latency(self) -> tuple[Comparison, ...]:
        """The latency comparisons."""
        return tuple(c for c in self.comparisons if c.signal == "latency")
