"""The latency gate: exceedance counts at shifted bounds, several bounds at once, and the grid they sit on."""

from __future__ import annotations

from math import log

import pytest

from penstock.core.gates import Block, LatencyBlock, LatencyShift, TwoSample, Verdict
from penstock.core.gates.grid import FLOOR, GRID, INFINITE, choose_bounds, fixed_bounds, place, watched
from penstock.core.gates.plan import Comparison
from penstock.core.gates.wording import ratio
from tests.unit.gates.fleet import LATENCY_GATE, plan


def shifted(above: tuple[int, ...], fail: tuple[int, ...], passing: tuple[int, ...]) -> LatencyBlock:
    return LatencyBlock(100, 900, above, fail, passing)


def test_one_bound_is_the_two_sample_test() -> None:
    gate = LatencyShift((True,))
    state = gate.update(gate.start(), shifted((90,), (25,), (8,)))
    plain = TwoSample(margin=0.5)
    same = plain.update(plain.start(), Block(25, 100, 90, 900))
    assert state.log_e_fail == pytest.approx(same.log_e_fail)


def test_fail_takes_the_mean_over_bounds_and_pass_the_least() -> None:
    one, two = LatencyShift((True,)), LatencyShift((True, True))
    slow = one.update(one.start(), shifted((90,), (40,), (30,)))
    both = two.update(two.start(), shifted((90, 9), (40, 1), (30, 0)))
    assert both.log_e_fail == pytest.approx(slow.log_e_fail - log(2), abs=0.01)
    assert two.verdict(both) is Verdict.FAIL
    fast = two.start()
    for _ in range(4):
        fast = two.update(fast, shifted((450, 90), (40, 5), (20, 8)))
    assert fast.peaks[0] > log(20) > fast.peaks[1]
    assert two.verdict(fast) is Verdict.INSUFFICIENT_DATA


def test_a_bound_that_is_not_needed_cannot_hold_a_pass_back() -> None:
    gate = LatencyShift((True, False))
    state = gate.start()
    for _ in range(4):
        state = gate.update(state, shifted((450, 0), (40, 0), (20, 0)))
    assert gate.verdict(state) is Verdict.PASS


def test_needs_a_bound_that_can_pass() -> None:
    with pytest.raises(ValueError, match="bound"):
        LatencyShift((False,))


@pytest.mark.parametrize(
    ("le", "k"),
    [("0.001", 0), ("0.0011", 1), ("0.001331", 3), ("+Inf", INFINITE), ("0.0012", None), ("x", None), ("-1", None)],
)
def test_places_on_the_grid(le: str, k: int | None) -> None:
    assert place(le) == k


def test_every_bound_of_the_grid_is_found_by_its_label() -> None:
    assert [place(repr(b)) for b in GRID] == list(range(97))
    assert GRID[-1] < 10 < GRID[-1] * 1.1


@pytest.mark.parametrize(
    ("max_ratio", "tolerance", "steps", "text"),
    [
        (1.21, 1.1, (1, 2), "1.21"),
        (1.2, 1.1, (1, 2), "1.21 (maxRatio 1.2 in steps of 1.1)"),
        (1.1, 1.1, (0, 1), "1.10"),
        (1.02, 1.1, (0, 1), "1.10 (maxRatio 1.02 in steps of 1.1)"),
        (1.5, 1.1, (1, 4), "1.46 (maxRatio 1.5 in steps of 1.1)"),
        (2.0, 1.21, (2, 7), "1.95 (maxRatio 2 in steps of 1.1)"),
    ],
)
def test_ratios_snap_to_the_grid_and_say_so(
    max_ratio: float, tolerance: float, steps: tuple[int, int], text: str
) -> None:
    comparison = Comparison("latency", "latency", max_ratio, tolerance)
    assert (comparison.fail_steps, comparison.pass_steps) == steps
    assert ratio(comparison) == text


def cumulative(share_at_or_below: dict[int, float], total: int = 10_000) -> dict[int, int]:
    found, reached = {}, 0.0
    for k in range(97):
        reached = share_at_or_below.get(k, reached)
        found[k] = round(total * reached)
    return {**found, INFINITE: total}


def test_bounds_sit_near_p50_p90_p99() -> None:
    shares = {k: 1 - 0.8 ** (k + 1) for k in range(97)}
    bounds = choose_bounds(plan(LATENCY_GATE), cumulative(shares))
    slower = [1 - shares[b.k] for b in bounds]
    assert [b.level for b in bounds] == [0.5, 0.9, 0.99]
    assert slower == pytest.approx([0.5, 0.1, 0.01], rel=0.15)
    assert all(b.needed for b in bounds)


def test_narrow_latency_gets_a_bound_above_that_only_fails() -> None:
    bounds = choose_bounds(plan(LATENCY_GATE), cumulative({30: 0.0, 31: 1.0}))
    assert [(b.k, b.needed) for b in bounds] == [(30, True), (31, False)]


def test_models_faster_than_the_grid_pass_at_its_floor() -> None:
    bounds = choose_bounds(plan(LATENCY_GATE), cumulative({0: 0.999, 5: 1.0}))
    assert [(b.k, b.needed) for b in bounds] == [(FLOOR, True), (0, False)]
    assert watched(plan(LATENCY_GATE), bounds) == (0, 1, 2, INFINITE)


def test_a_bound_hardly_exceeded_only_fails() -> None:
    bounds = choose_bounds(plan(LATENCY_GATE), cumulative({20: 0.55, 30: 0.9, 31: 0.998, 60: 1.0}))
    assert [(b.k, b.needed) for b in bounds] == [(20, True), (30, True), (31, False)]


def test_bounds_leave_room_for_the_shift() -> None:
    bounds = choose_bounds(plan(LATENCY_GATE), cumulative({96: 0.01}))
    assert max(watched(plan(LATENCY_GATE), bounds)[:-1]) <= 96


def test_too_little_history_gives_no_bounds() -> None:
    assert choose_bounds(plan(LATENCY_GATE), cumulative({30: 0.5, 40: 1.0}, total=199)) == ()
    assert choose_bounds(plan(LATENCY_GATE), {INFINITE: 5000}) == ()


def test_bounds_of_the_plan_snap_to_the_grid() -> None:
    fixed = plan(LATENCY_GATE, latency_bounds=(0.05, 0.0501, 0.2, 50.0))
    assert [b.k for b in fixed_bounds(fixed)] == [41, 56, 94]
    assert watched(fixed, fixed_bounds(fixed)) == (0, 41, 42, 43, 56, 57, 58, 94, 95, 96, INFINITE)
