"""What a gate can say, and the counts it says it on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The four answers of a gate. Only PASS moves traffic forward, only FAIL moves it back."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    FAIL = "Fail"
    INSUFFICIENT_DATA = "InsufficientData"
    CANNOT_MEASURE = "CannotMeasure"


@dataclass(frozen=True, slots=True)
class Block:
    """Trials and bad outcomes of both arms over the same stretch of time.

    All four are counts (not rates) of what happened within the block only. A bad outcome is a wrong label,
    a failed request, or a request slower than a bound.

    Raises ValueError where a count is negative or an arm has more bad outcomes than trials.
    """

    canary_bad: int
    canary_n: int
    stable_bad: int
    stable_n: int

    def __post_init__(self) -> None:
        for arm, bad, n in (
            ("canary", self.canary_bad, self.canary_n),
            ("stable", self.stable_bad, self.stable_n),
        ):
            if not 0 <= bad <= n:
                raise ValueError(f"{arm}: {bad} bad outcomes of {n} trials; need 0 <= bad <= trials")
