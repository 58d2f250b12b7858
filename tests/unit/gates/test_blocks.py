"""Which scrapes go into a block and when it closes: cold starts, missed scrapes, changed weights, lost pods."""

from __future__ import annotations

import pytest

from penstock.core.gates.evidence import (
    REQUESTS,
    Plan,
    PodFact,
    Series,
    dump,
    load,
    mark_weight,
    observed_share,
    oldest_cursor,
    start,
    update,
)
from tests.unit.gates.fleet import ACCURACY, ERRORS, START, plan
from tests.unit.gates.story import Story, counts, exposed, story


def test_a_block_closes_at_a_scrape_once_it_is_long_enough() -> None:
    told = story()
    told.tick(3, c_0=1)
    assert told.errors().blocks == 0
    told.tick(c_0=1)
    assert told.errors().blocks == 1
    assert counts(told.errors()) == (40, 4, 80, 0)
    told.tick(4)
    assert counts(told.errors()) == (80, 4, 160, 0)


def test_scrapes_at_different_times_give_windows_of_one_length() -> None:
    told = story(block_seconds=15.0)
    fleet = told.fleet
    for i in range(1, 9):
        for offset, name in ((15 * i + 3, "s-0"), (15 * i + 7, "s-1"), (15 * i + 11, "c-0")):
            fleet.pods[name].serve(10)
            fleet.pods[name].scrape(START + offset)
    told.at = START + 200
    told.look()
    assert told.errors().blocks == 8
    assert counts(told.errors()) == (80, 0, 160, 0)


def test_a_missed_scrape_makes_a_longer_block() -> None:
    told = story()
    told.tick(3)
    told.tick(2, skip=("s-1",))
    assert told.errors().blocks == 0
    told.tick()
    assert told.errors().blocks == 1
    assert counts(told.errors()) == (60, 0, 120, 0)


def test_a_pod_silent_for_long_is_no_longer_waited_for() -> None:
    """And the block that it was in is discarded: what it served since is not told, what the others did is."""
    told = story()
    told.tick(2)
    told.tick(11, skip=("s-1",))
    assert told.errors().blocks == 0
    told.tick(4, skip=("s-1",))
    assert counts(told.errors()) == (40, 0, 40, 0)
    told.tick(8)
    assert told.errors().blocks >= 2


def test_the_only_canary_pod_is_waited_for() -> None:
    """Stable's requests of a time without canary samples are compared with the canary's of the same time."""
    told = story()
    told.tick(2)
    told.tick(40, skip=("c-0",))
    assert told.errors().blocks == 0
    told.tick()
    assert counts(told.errors()) == (430, 0, 860, 0)


def test_an_outage_of_the_source_is_bridged() -> None:
    told = story()
    told.tick(2)
    told.at += 3600
    told.tick()
    assert counts(told.errors()) == (30, 0, 60, 0)


def test_no_requests_to_the_canary_keep_the_block_open() -> None:
    told = story()
    for i in range(1, 9):
        told.fleet.pods["s-0"].serve(10)
        told.fleet.scrape(START + 15 * i)
    told.at = START + 120
    told.look()
    assert told.errors().blocks == 0
    told.tick()
    assert counts(told.errors())[0] == 10


def test_cold_canary_requests_count_for_neither_arm() -> None:
    """Warm at the 10th scrape (100 requests); the block of 4 scrapes after it is the first."""
    told = story(cold_start_requests=100, cold_start_seconds=60.0)
    told.tick(10, c_0=10)
    assert told.errors().blocks == 0
    told.tick(4, c_0=1)
    assert counts(told.errors()) == (40, 4, 80, 0)


def test_a_pod_counts_only_after_its_time_of_readiness() -> None:
    told = story(canary=0, cold_start_requests=0, cold_start_seconds=60.0, block_seconds=15.0)
    told.fleet.add("c-0", "c1", START, ready=40.0)
    told.tick(6)
    assert told.errors().blocks == 0
    assert not told.evidence.cursors["c-0"].warm
    told.tick(2)
    assert told.evidence.cursors["c-0"].warm
    assert counts(told.errors()) == (10, 0, 20, 0)


def test_at_low_traffic_five_minutes_of_readiness_are_enough() -> None:
    told = story(canary=0, cold_start_requests=10_000, cold_start_seconds=60.0, block_seconds=15.0)
    told.fleet.add("c-0", "c1", START, ready=0.0)
    told.tick(19)
    assert told.errors().blocks == 0
    told.tick(2)
    assert told.errors().blocks == 1


@pytest.mark.parametrize("waited", [0, 60, 400])
def test_a_canary_that_waited_without_weight_is_cold_when_it_gets_some(waited: int) -> None:
    """Behind a leading hold, or paused while it loads: its first requests are slow and fail as any pod's."""
    told = Story(plan(ERRORS, block_seconds=60.0, cold_start_requests=100, cold_start_seconds=60.0))
    told.evidence = mark_weight(told.evidence, 0, START)
    for name, revision, created in (("s-0", "s1", START - 9000), ("c-0", "c1", START - 60)):
        told.fleet.add(name, revision, created)
    for _ in range(waited // 15):
        told.at += 15
        told.fleet.pods["s-0"].serve(10)
        told.fleet.scrape(told.at)
        told.look()
    told.evidence = mark_weight(told.evidence, 50, told.at)
    told.tick(10, c_0=5)
    assert told.errors().blocks == 0
    told.tick(4)
    assert counts(told.errors())[:2] == (40, 0)


def test_at_low_traffic_five_minutes_of_weight_are_enough_for_a_canary_that_waited() -> None:
    told = Story(plan(ERRORS, cold_start_requests=10_000, cold_start_seconds=60.0))
    told.evidence = mark_weight(told.evidence, 0, START)
    told.fleet.add("s-0", "s1")
    told.fleet.add("c-0", "c1")
    told.tick(20)
    assert not told.evidence.cursors["c-0"].warm
    assert told.evidence.cursors["s-0"].warm
    told.evidence = mark_weight(told.evidence, 5, told.at)
    told.tick(19)
    assert not told.evidence.cursors["c-0"].warm
    told.tick()
    assert told.evidence.cursors["c-0"].warm


def test_a_pod_that_is_not_ready_stays_cold() -> None:
    told = story(canary=0, cold_start_requests=10, cold_start_seconds=10.0, block_seconds=15.0)
    told.fleet.add("c-0", "c1", START, ready=None)
    told.tick(40)
    assert told.errors().blocks == 0


def test_further_canary_pods_warm_up_beside_the_measured_ones() -> None:
    told = story(cold_start_requests=100, cold_start_seconds=0.0)
    told.tick(14)
    before = counts(told.errors())
    told.fleet.add("c-1", "c1", told.at + 1, ready=0.0)
    told.tick(8, c_1=10)
    canary, canary_bad, stable, _ = counts(told.errors())
    assert (canary - before[0], canary_bad, stable - before[2]) == (80, 0, 160)
    told.tick(8, c_1=1)
    assert told.errors().canary_bad == 4


def test_a_restarted_pod_is_cold_again() -> None:
    told = story(canary=2, cold_start_requests=100, cold_start_seconds=0.0)
    told.tick(14)
    told.fleet.pods["c-1"].restart()
    told.fleet.pods["c-1"].ready_since = told.at + 5
    told.tick(8, c_1=10)
    assert told.errors().canary_bad == 0
    assert told.evidence.cursors["c-1"].warm is False


def test_without_cold_starts_a_new_pod_counts_from_its_birth() -> None:
    told = story(block_seconds=15.0)
    told.tick(4)
    told.fleet.add("c-1", "c1", told.at + 1)
    told.tick(c_1=7)
    assert told.errors().canary_bad == 7


def test_a_changed_weight_ends_the_block_and_drops_the_scrape_it_changed_in() -> None:
    told = story()
    told.tick(2)
    told.evidence = mark_weight(told.evidence, 25, told.at + 5)
    assert told.evidence.blocks_at_weight == 0
    told.tick(s_0=10, c_0=10)
    assert counts(told.errors()) == (20, 0, 40, 0)
    assert told.evidence.blocks_at_weight == 0
    told.tick(4)
    assert counts(told.errors()) == (60, 0, 120, 0)
    assert told.evidence.blocks_at_weight == 1


def test_marking_the_same_weight_again_changes_nothing() -> None:
    told = story()
    once = mark_weight(told.evidence, 5, START)
    assert mark_weight(once, 5, START + 50) is once


def test_soak_begins_with_the_first_exposure() -> None:
    evidence = mark_weight(start(plan()), 0, START)
    assert evidence.exposed_at is None
    evidence = mark_weight(evidence, 5, START + 40)
    evidence = mark_weight(evidence, 25, START + 90)
    assert evidence.exposed_at == START + 40


def test_the_block_of_a_deleted_canary_pod_is_kept() -> None:
    told = story()
    told.tick(3, c_0=1)
    del told.fleet.pods["c-0"]
    told.tick()
    assert counts(told.errors()) == (30, 3, 80, 0)
    told.tick(60)
    assert told.errors().blocks == 1
    assert "c-0" not in told.evidence.cursors


def test_a_block_whose_canary_fell_silent_long_before_it_was_deleted_is_dropped() -> None:
    """Stable's requests since then have no canary requests of their time to be compared with."""
    told = story()
    told.tick(3, c_0=1)
    told.tick(8, skip=("c-0",))
    del told.fleet.pods["c-0"]
    told.tick()
    assert told.errors().blocks == 0
    assert told.evidence.traffic.opened is None


def test_a_canary_back_after_more_than_six_hours_begins_a_new_block() -> None:
    told = story()
    told.tick(2)
    told.every = 1800.0
    told.tick(13, skip=("c-0",))
    told.every = 15.0
    told.tick(1, c_0=9)
    assert told.errors().blocks == 0
    assert told.evidence.gap == (START + 30, told.at)
    told.tick(4)
    assert counts(told.errors()) == (40, 0, 80, 0)


def test_a_late_sample_does_not_turn_the_clock_back() -> None:
    told = story()
    told.tick(3, skip=("s-1",))
    told.fleet.pods["s-1"].scrape(told.at - 20)
    evidence = update(told.plan, told.evidence, told.fleet.series(), told.fleet.facts(), told.at)
    assert evidence.cursors["s-1"].at == told.at - 20
    assert evidence.newest == told.at


def test_a_restart_is_worth_persisting() -> None:
    """The counters of before are gone: later samples could not tell what they had come to."""
    told = story()
    told.tick(1)
    told.fleet.pods["s-1"].restart()
    before = told.evidence.milestones
    told.tick(1, s_1=10)
    assert told.evidence.milestones == before + 1


def test_jitter_of_the_scrapes_does_not_lengthen_blocks() -> None:
    told = story(block_seconds=15.0)
    for i in range(1, 21):
        told.at = START + 15 * i + (0.4 if i % 2 else 0.0)
        for pod in told.fleet.pods.values():
            pod.serve(10)
        told.fleet.scrape(told.at)
        told.look()
    assert told.errors().blocks == 20


def test_after_a_changed_weight_all_windows_begin_behind_it() -> None:
    told = story()
    told.tick(2)
    told.evidence = mark_weight(told.evidence, 25, told.at + 5)
    told.tick(1, skip=("s-1",), s_1=10)
    told.tick(1, s_1=10)
    told.tick(4)
    assert counts(told.errors()) == (60, 0, 120, 0)


def test_labels_do_not_wait_for_a_pod_silent_for_long() -> None:
    told = Story(plan(ACCURACY))
    for name, revision in (("s-0", "s1"), ("s-1", "s1"), ("c-0", "c1")):
        told.fleet.add(name, revision)
    told.fleet.scrape(START)
    told.look()
    for _ in range(20):
        told.fleet.pods["c-0"].label("s1", 5, 0)
        told.fleet.pods["c-0"].label("c1", 1, 0)
        told.tick(skip=("s-1",))
    assert counts(told.evidence.gates[0]) == (20, 0, 100, 0)


def test_labels_do_not_wait_for_a_deleted_pod() -> None:
    told = Story(plan(ACCURACY))
    for name, revision in (("s-0", "s1"), ("s-1", "s1"), ("c-0", "c1")):
        told.fleet.add(name, revision)
    told.tick()
    del told.fleet.pods["s-1"]
    told.fleet.pods["c-0"].label("s1", 5, 0)
    told.fleet.pods["c-0"].label("c1", 1, 0)
    told.tick(1)
    assert counts(told.evidence.gates[0]) == (1, 0, 5, 0)


def test_labels_count_for_who_predicted_wherever_they_arrive() -> None:
    told = Story(plan(ACCURACY, cold_start_requests=10_000, cold_start_seconds=60.0))
    told.fleet.add("s-0", "s1")
    told.fleet.add("c-0", "c1")
    told.fleet.scrape(START)
    told.look()
    told.fleet.pods["s-0"].label("c1", 5, 2)
    told.fleet.pods["c-0"].label("c1", 1, 1)
    told.fleet.pods["c-0"].label("s1", 20, 3)
    told.tick()
    assert counts(told.evidence.gates[0]) == (9, 3, 23, 3)


def test_labels_of_one_arm_wait_for_the_other() -> None:
    told = Story(plan(ACCURACY))
    told.fleet.add("s-0", "s1")
    told.fleet.scrape(START)
    for _ in range(5):
        told.fleet.pods["s-0"].label("s1", 20, 0)
        told.tick()
    assert told.evidence.gates[0].blocks == 0
    told.fleet.pods["s-0"].label("c1", 1, 0)
    told.tick()
    assert counts(told.evidence.gates[0]) == (1, 0, 100, 0)


def test_the_observed_share_is_of_all_requests_cold_ones_too() -> None:
    told = story(cold_start_requests=10_000, feedback_block_seconds=15.0)
    told.evidence = mark_weight(told.evidence, 33, START)
    told.tick(5)
    assert observed_share(told.evidence) == (40, 120)
    assert observed_share(told.evidence, since=START + 30) == (0, 0)
    told.evidence = mark_weight(told.evidence, 50, told.at)
    assert observed_share(told.evidence) == (0, 0)


def test_requests_of_before_a_changed_weight_are_not_of_its_share() -> None:
    """The mark is set on the clock; samples of before it may still be on their way."""
    told = story(feedback_block_seconds=15.0)
    told.evidence = mark_weight(told.evidence, 33, told.at + 40)
    told.tick(2)
    assert observed_share(told.evidence) == (20, 60)
    told.tick(1)
    assert observed_share(told.evidence) == (0, 0)
    told.tick(1)
    assert observed_share(told.evidence) == (10, 30)


def test_windows_in_which_pods_come_do_not_show_the_split() -> None:
    told = story(feedback_block_seconds=15.0)
    told.evidence = mark_weight(told.evidence, 33, START)
    told.tick(3)
    before = observed_share(told.evidence)
    told.fleet.add("c-1", "c1", told.at + 1)
    told.tick()
    assert observed_share(told.evidence) == before
    told.tick()
    assert observed_share(told.evidence) == (before[0] + 20, before[1] + 40)


def test_the_query_goes_back_to_the_oldest_live_cursor() -> None:
    told = story()
    assert oldest_cursor(start(told.plan)) is None
    told.tick(3)
    told.tick(2, skip=("s-1",))
    assert oldest_cursor(told.evidence) == START + 45
    told.tick(50, skip=("s-1",))
    assert oldest_cursor(told.evidence) == told.at


def test_keeping_only_milestones_reaches_the_same_blocks_with_single_points() -> None:
    """A source that keeps no history: each look has one point per counter and begins from what was persisted."""
    told = story(cold_start_requests=100, cold_start_seconds=30.0)
    kept = dump(exposed(told.plan))
    writes = 0
    for i in range(1, 41):
        at = START + 15 * i
        for pod in told.fleet.pods.values():
            pod.serve(10)
        told.fleet.scrape(at)
        before = load(kept)
        after = update(told.plan, before, told.fleet.series(at - 1, at), told.fleet.facts(), at)
        if after.milestones != before.milestones:
            kept, writes = dump(after), writes + 1
    record = load(kept).gates[0]
    assert (record.blocks, record.canary_n, record.stable_n) == (7, 280, 560)
    assert writes <= 12


def test_a_block_shorter_than_the_scrape_interval_closes_though_pods_are_scraped_at_other_times() -> None:
    chosen = Plan(
        stable="s", canary="c", cohort="x", comparisons=(ERRORS,), started_at=START,
        block_seconds=2, soak_seconds=0, cold_start_requests=0, cold_start_seconds=0,
    )  # fmt: skip

    def ok(pod: str, revision: str, phase: float) -> Series:
        points = tuple((START + phase + 5 * i, float(50 * i)) for i in range(8))
        return Series(pod, revision, REQUESTS, (("outcome", "ok"),), points)

    series = [ok("s-0", "s", 0.0), ok("c-0", "c", 2.5)]
    facts = {"s-0": PodFact("s", START - 900, START - 800), "c-0": PodFact("c", START - 100, START - 90)}
    evidence = update(chosen, mark_weight(start(chosen), 20, START), series, facts, START + 40)
    (gate,) = evidence.gates
    assert gate.canary_n >= 100
    assert gate.stable_n >= 100
