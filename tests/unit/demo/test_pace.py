"""The story's traffic slows down where the machine cannot carry it, and only there."""

from __future__ import annotations

from typing import Any

from e2e.demo.pace import LEAST_RATE, PATIENCE_SECONDS, Pace
from tests.unit.demo.states import second


def line(answered: int) -> dict[str, Any]:
    """A second with so many answers."""
    return {"second": second(1.0, v1=(answered, 0, 1.0))}


def test_keeps_the_rate_that_is_carried() -> None:
    pace = Pace(400)
    assert not any(pace.must_slow_down(line(390)) for _ in range(50))
    assert pace.rate == 400


def test_a_short_stall_changes_nothing() -> None:
    pace = Pace(400)
    for _ in range(10):
        stalls = [pace.must_slow_down(line(0)) for _ in range(PATIENCE_SECONDS - 1)]
        assert not any([*stalls, pace.must_slow_down(line(400))])


def test_slows_down_after_some_bad_seconds_and_waits_again() -> None:
    pace = Pace(400)
    told = [pace.must_slow_down(line(200)) for _ in range(2 * PATIENCE_SECONDS - 1)]
    assert told.count(True) == 1
    assert pace.rate == 280


def test_never_goes_below_the_least() -> None:
    pace = Pace(60)
    told = [pace.must_slow_down(line(0)) for _ in range(10 * PATIENCE_SECONDS)]
    assert told.count(True) == 1
    assert pace.rate == LEAST_RATE
