"""Pods that are not heard of: the source was away, a pod was, or a process began anew. No block mixes before and after.

Blocks are compared on totals, so all pods of a block must tell of the same time: where they do, an incident that hits
both revisions alike is no evidence, however bad it is.
"""

from __future__ import annotations

from itertools import permutations

import pytest

from penstock.core.gates.evidence import Series, dump, load, start, update
from penstock.core.gates.samples import REQUESTS
from tests.unit.gates.fleet import ERRORS, START, Fleet, plan
from tests.unit.gates.story import Story, counts, story


def skewed(told: Story, seconds: float, bad: int, skip: tuple[str, ...] = ()) -> None:
    """Time passes, with 10 requests a pod for each 15 s, `bad` of them failing; each pod answers at its own moment."""
    told.at += seconds
    for i, pod in enumerate(told.fleet.pods.values()):
        pod.serve(round(10 * seconds / 15), bad=round(bad * seconds / 15))
        if pod.name not in skip:
            pod.scrape(told.at + 0.003 * i)
    told.at += 0.1
    told.look()
    told.at -= 0.1


@pytest.mark.parametrize("gap", [120, 160, 300, 3600])
def test_after_a_gap_of_the_source_the_block_has_all_of_it_for_all_pods(gap: int) -> None:
    told = story(stable=4)
    for _ in range(3):
        skewed(told, 15, 0)
    skewed(told, gap, bad=6)
    skewed(told, 15, 0)
    canary, canary_bad, stable, stable_bad = counts(told.errors())
    assert canary >= 10 * gap / 15
    assert (stable, stable_bad) == (4 * canary, 4 * canary_bad)


def test_after_a_gap_a_pod_that_does_not_come_back_is_waited_for_no_longer_than_usual() -> None:
    told = story(stable=2)
    skewed(told, 15, 0)
    skewed(told, 300, bad=6, skip=("s-1",))
    for _ in range(9):
        skewed(told, 15, 0, skip=("s-1",))
    assert told.evidence.traffic.members.keys() == {"s-0", "s-1", "c-0"}
    for _ in range(7):
        skewed(told, 15, 0, skip=("s-1",))
    assert counts(told.errors()) == (40, 0, 40, 0), "the gap of which one pod does not tell is in no block"


def test_an_arm_back_from_its_own_gap_is_waited_for_as_a_whole() -> None:
    told = story(stable=4)
    skewed(told, 15, 0)
    for _ in range(12):
        skewed(told, 15, bad=6, skip=("s-0", "s-1", "s-2", "s-3"))
    skewed(told, 15, 0)
    canary, canary_bad, stable, stable_bad = counts(told.errors())
    assert (canary, canary_bad) == (130, 72)
    assert (stable, stable_bad) == (4 * (canary + 10), 4 * canary_bad), "of the last scrape stable's came first"


def test_a_restart_ends_the_block_at_what_all_pods_told_before_it() -> None:
    """A pod that is cold again serves uncounted: the requests since weigh otherwise than those before."""
    told = story(cold_start_requests=100, cold_start_seconds=30.0, stable=2)
    told.tick(10)
    told.tick(3)
    assert told.errors().blocks == 0
    told.fleet.pods["s-1"].restart()
    told.fleet.pods["s-1"].ready_since = told.at + 5
    told.tick(1, s_0=9, s_1=9, c_0=9)
    assert counts(told.errors()) == (30, 0, 60, 0)
    told.tick(4)
    assert counts(told.errors()) == (70, 0, 100, 0)


def incident(told: Story, order: tuple[str, ...], restarts: str = "") -> None:
    """Both revisions fail alike for three scrapes; pods are scraped in step, in this order, ms apart."""
    for i in range(17):
        if i == 5 and restarts:
            told.fleet.pods[restarts].restart()
            told.fleet.pods[restarts].ready_since = told.at + 1
        told.at += 15
        for j, name in enumerate(order):
            told.fleet.pods[name].serve(100, bad=30 if 5 <= i < 8 else 0)
            told.fleet.pods[name].scrape(told.at + 0.003 * j)
        told.at += 0.1
        told.look()
        told.at -= 0.1


@pytest.mark.parametrize("order", list(permutations(("s-0", "s-1", "c-0"))))
@pytest.mark.parametrize("restarts", ["", "s-1"])
def test_an_incident_of_both_is_no_evidence_whoever_is_scraped_first(order: tuple[str, ...], restarts: str) -> None:
    """A block begins and ends between two rounds of scrapes, also where the canary becomes warm within one."""
    told = story(stable=2, canary=0, cold_start_requests=100, cold_start_seconds=30.0)
    told.fleet.add("c-0", "c1", START - 1, ready=1.0)
    for pod in told.fleet.pods.values():
        pod.serve(50)
    incident(told, order, restarts)
    record = told.errors()
    assert record.blocks >= 2
    assert record.state is not None
    assert record.state.peak_fail < 1


def test_a_pod_deleted_in_a_gap_takes_the_block_with_it() -> None:
    told = story(stable=2)
    told.tick(2)
    told.fleet.pods.pop("s-1")
    told.at += 400
    told.tick()
    assert told.errors().blocks == 0
    told.tick(4)
    assert counts(told.errors()) == (40, 0, 40, 0)


def test_evidence_is_persisted_often_enough_to_tell_a_silent_pod_from_a_gap_of_the_source() -> None:
    """Without history each look begins from what was persisted; with no request to the canary no block closes."""
    chosen, fleet = plan(ERRORS, block_seconds=60.0), Fleet()
    for name, revision in (("s-0", "s1"), ("s-1", "s1"), ("c-0", "c1")):
        fleet.add(name, revision).serve(1000)
    kept, writes = dump(start(chosen)), 0
    for i in range(80):
        at = START + 15 * i
        for pod in fleet.pods.values():
            pod.serve(0 if pod.name == "c-0" and i < 60 else 10)
            if pod.name != "s-1" or i < 4:
                pod.scrape(at)
        before = load(kept)
        after = update(chosen, before, fleet.series(at - 1, at), fleet.facts(), at)
        if after.milestones != before.milestones:
            kept, writes = dump(after), writes + 1
    assert load(kept).traffic.members.keys() == {"s-0", "c-0"}
    assert load(kept).gates[0].blocks > 0
    assert writes <= 80 * 15 / 45


def test_evidence_of_an_operator_that_knew_no_gaps_is_read() -> None:
    told = story()
    told.tick(5)
    stored = dump(told.evidence)
    del stored["resumed"]
    assert load(stored) == told.evidence


def test_a_gap_is_told_from_scrapes_a_minute_apart() -> None:
    chosen = plan(ERRORS, block_seconds=60.0)
    labels = (("outcome", "ok"),)
    series = [
        Series(pod, revision, REQUESTS, labels, tuple((START + 60.0 * i, 50.0 * i) for i in range(8)))
        for pod, revision in (("s-0", "s1"), ("c-0", "c1"))
    ]
    fleet = Fleet()
    fleet.add("s-0", "s1")
    fleet.add("c-0", "c1")
    evidence = update(chosen, start(chosen), series, fleet.facts(), START + 430)
    assert evidence.resumed == {}
    assert evidence.gates[0].blocks >= 6
