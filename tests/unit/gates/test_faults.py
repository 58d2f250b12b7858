"""What cannot be measured is said, for as long as it lasts and no longer."""

from __future__ import annotations

from penstock.core.gates.evidence import judge
from tests.unit.gates.fleet import START
from tests.unit.gates.story import Story, story


def reasons(told: Story) -> set[str]:
    return {str(f.reason) for f in told.evidence.faults}


def test_pods_that_replaced_others_and_are_never_scraped_are_missed() -> None:
    told = story()
    told.tick(8)
    del told.fleet.pods["c-0"]
    told.fleet.add("c-1", "c1", told.at - 20, ready=10.0)
    told.tick(9, skip=("c-1",))
    assert reasons(told) == set()
    told.tick(2, skip=("c-1",))
    assert reasons(told) == {"SamplesStale"}
    (found,) = judge(told.plan, told.evidence, told.at)
    assert found.verdict == "CannotMeasure"
    assert "no samples from canary" in found.message
    told.tick(1)
    assert reasons(told) == set()


def test_old_pods_are_not_missed_before_there_was_time_to_scrape_them() -> None:
    told = story(stable=2, canary=1)
    told = Story(told.plan)
    told.fleet.add("s-0", "s1", START - 90_000)
    told.fleet.add("c-0", "c1", START - 900)
    told.tick(6, skip=("s-0",))
    assert "SamplesStale" not in reasons(told)


def test_after_a_gap_of_the_source_the_side_seen_later_is_not_missed_at_once() -> None:
    told = story()
    told.tick(4)
    told.at += 600
    told.tick(1, skip=("c-0",))
    assert reasons(told) == set()
    told.tick(11, skip=("c-0",))
    assert reasons(told) == {"SamplesStale"}
