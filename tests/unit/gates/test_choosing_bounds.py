"""Which latency bounds a rollout compares at, and what its queries still ask for."""

from __future__ import annotations

import pytest

from penstock.core.gates.evidence import (
    wanted_buckets,
)
from tests.unit.gates.fleet import LATENCY_GATE, START, plan
from tests.unit.gates.story import Story


def spread(center: float, n: int = 1000) -> list[float]:
    """Latencies in seconds, from the median up to three times of it and down to a third."""
    return [center * 3 ** (2 * i / n - 1) for i in range(n)]


def test_bounds_come_from_stables_latency_of_late_and_narrow_the_query() -> None:
    told = Story(plan(LATENCY_GATE, block_seconds=60.0))
    assert wanted_buckets(told.evidence) is None
    pod = told.fleet.add("s-0", "s1")
    pod.serve(5000, seconds=spread(1.0, 5000))  # the pod's start, or a busier time of day
    told.tick()
    assert not told.evidence.bounds
    pod.serve(1000, seconds=spread(0.02))
    told.tick()
    assert [b.level for b in told.evidence.bounds] == [0.5, 0.9, 0.99]
    assert told.evidence.bounds[0].seconds == pytest.approx(0.02, rel=0.1)
    assert told.evidence.bounds[-1].seconds == pytest.approx(0.06, rel=0.1)
    wanted = wanted_buckets(told.evidence)
    assert wanted is not None
    assert wanted[-1] == "+Inf"
    assert len(wanted) <= 11


def test_where_little_happens_a_pods_whole_life_is_asked_after_one_block() -> None:
    told = Story(plan(LATENCY_GATE, block_seconds=60.0))
    told.fleet.add("s-0", "s1").serve(1000, seconds=spread(0.05))
    told.tick(4)
    assert not told.evidence.bounds
    told.tick()
    assert told.evidence.bounds[0].seconds == pytest.approx(0.05, rel=0.1)


def test_a_pod_that_goes_before_it_has_shown_its_latency_is_followed_by_another() -> None:
    told = Story(plan(LATENCY_GATE, block_seconds=60.0))
    told.fleet.add("s-0", "s1")
    told.tick()
    del told.fleet.pods["s-0"]
    told.fleet.add("s-1", "s1")
    told.tick()
    told.fleet.pods["s-1"].serve(1000, seconds=spread(0.05))
    told.tick()
    assert told.evidence.bounds[0].seconds == pytest.approx(0.05, rel=0.1)


def test_a_young_stable_gets_its_bounds_from_its_first_200_requests() -> None:
    told = Story(plan(LATENCY_GATE))
    told.fleet.add("s-0", "s1")
    told.fleet.add("c-0", "c1")
    told.tick(19)
    assert told.evidence.bounds == ()
    told.tick()
    assert told.evidence.bounds != ()
    told.tick(3)
    assert told.evidence.gates[0].canary_n == 20


@pytest.mark.parametrize(("per_tick", "levels"), [(2, [0.5, 0.9]), (4, [0.5, 0.9, 0.99])])
def test_p99_only_with_enough_canary_traffic(per_tick: int, levels: list[float]) -> None:
    told = Story(plan(LATENCY_GATE))
    told.fleet.add("s-0", "s1").serve(400, seconds=[0.01 * 1.01**i for i in range(400)])
    told.fleet.add("c-0", "c1")
    told.fleet.scrape(START)
    told.look()
    for i in (1, 2, 3):
        told.fleet.pods["s-0"].serve(40)
        told.fleet.pods["c-0"].serve(per_tick)
        told.fleet.scrape(START + 15 * i)
    told.at = START + 45
    told.look()
    assert [b.level for b in told.evidence.bounds] == levels
