"""More than 64 pods an arm, and pods that are replaced in numbers: steps go on, only the share cannot be told."""

from __future__ import annotations

from penstock.core.analysis import Running, measure
from penstock.core.gates.evidence import observed_share
from penstock.core.world import Measurement
from tests.unit.gates.story import Story, story


def measured(told: Story, weight: int) -> Measurement:
    running = Running("m", told.plan, told.evidence, 0, None)
    return measure(running, told.evidence, weight, told.at, exact=True)


def replace_pods(told: Story, old: list[str], new: list[str]) -> None:
    for name in old:
        del told.fleet.pods[name]
    for name in new:
        told.fleet.add(name, "s1", told.at - 5, ready=1.0)


def test_requests_of_the_canary_are_seen_at_its_weight_whatever_the_number_of_stable_pods() -> None:
    told = story(stable=70)
    told.tick(8)
    seen = measured(told, 5)
    assert told.evidence.partial
    assert seen.fresh_requests >= 20
    assert (seen.observed_weight, seen.share_is_right) == (None, True)


def test_pods_that_were_replaced_take_no_place_of_the_living() -> None:
    told = story(stable=40, feedback_block_seconds=15.0)
    told.tick(4)
    replace_pods(told, [f"s-{i}" for i in range(30)], [f"n-{i}" for i in range(30)])
    told.tick(4)
    assert not told.evidence.partial
    assert {f"n-{i}" for i in range(30)} <= told.evidence.cursors.keys()
    assert observed_share(told.evidence) != (0, 0)


def test_once_all_pods_are_read_again_the_share_is_of_all() -> None:
    told = story(stable=70, feedback_block_seconds=15.0)
    told.tick(4)
    replace_pods(told, [f"s-{i}" for i in range(68)], [])
    told.tick(1)
    assert not told.evidence.partial
    told.tick(5)
    canary, total = observed_share(told.evidence)
    assert total == 3 * canary > 0
