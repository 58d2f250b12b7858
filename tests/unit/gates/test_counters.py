"""From raw samples to increments: restarts, births, gaps, torn and doubled series."""

from __future__ import annotations

import pytest

from penstock.core.gates.evidence import FEEDBACK, LATENCY, REQUESTS, Evidence, Plan, Series, judge, start, update
from penstock.core.gates.frames import Step, advance, read
from penstock.core.gates.record import Cursor
from tests.unit.gates.fleet import ACCURACY, ERRORS, LATENCY_GATE, OUTCOMES, START, Fleet, plan


def steps(fleet: Fleet, pod: str, chosen: Plan | None = None, watch: tuple[int, ...] = ()) -> list[Step]:
    """What each scrape of a pod adds."""
    chosen = chosen or plan()
    cursor: Cursor | None = None
    found = []
    for frame in read(chosen, fleet.series(), {}, fleet.facts(), watch).frames:
        if frame.pod == pod:
            step = advance(chosen, cursor, frame, fleet.facts().get(pod), watch)
            found.append(step)
            cursor = step.cursor
    return found


def test_increments_are_differences_of_raw_counters() -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    for at, (n, bad) in enumerate([(100, 3), (40, 2), (0, 0), (7, 7)]):
        pod.serve(n, bad=bad)
        pod.scrape(START + 15 * at)
    assert [(s.n, s.bad) for s in steps(fleet, "s-0")] == [(0, 0), (40, 2), (0, 0), (7, 7)]


@pytest.mark.parametrize("outcome", OUTCOMES[1:])
def test_everything_but_ok_is_bad(outcome: str) -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    pod.scrape(START)
    pod.serve(10, bad=4, outcome=outcome)
    pod.scrape(START + 15)
    assert [(s.n, s.bad) for s in steps(fleet, "s-0")][-1] == (10, 4)


def test_a_restart_counts_what_came_after_it_for_every_counter() -> None:
    """The errors grew past their old value meanwhile: only the fall of `ok` tells that the process is a new one."""
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    pod.serve(1000, bad=2)
    pod.scrape(START)
    pod.restart()
    pod.serve(50, bad=5)
    pod.label("c1", 3, 1)
    pod.scrape(START + 15)
    last = steps(fleet, "s-0")[-1]
    assert (last.n, last.bad, last.restarted) == (50, 5, True)
    assert last.labels == (0, 0, 3, 1)


def restarted_with(change: str) -> Step:
    """A pod of which, between two scrapes, only one kind of counter fell."""
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    pod.serve(100, seconds=[0.05] * 100)
    pod.label("c1", 40, 9)
    pod.scrape(START)
    pod.restart()
    pod.serve(120, seconds=[0.05 if change == "labels" else 0.9] * 120)
    pod.label("c1", 3 if change == "labels" else 50, 10)
    pod.scrape(START + 15)
    return steps(fleet, "s-0", watch=(45, 97))[-1]


def test_a_fall_of_labels_alone_tells_a_restart() -> None:
    last = restarted_with("labels")
    assert (last.restarted, last.n, last.buckets, last.labels) == (True, 120, (120, 120), (0, 0, 3, 10))


def test_a_fall_of_one_bucket_alone_tells_a_restart() -> None:
    last = restarted_with("buckets")
    assert (last.restarted, last.n, last.buckets, last.labels) == (True, 120, (0, 120), (0, 0, 50, 10))


def test_a_pod_born_after_the_start_counts_from_nought() -> None:
    fleet = Fleet()
    pod = fleet.add("c-0", "c1", START + 5)
    pod.serve(30, bad=1)
    pod.scrape(START + 20)
    assert [(s.n, s.bad, s.newborn) for s in steps(fleet, "c-0")] == [(30, 1, True)]


def test_a_created_timestamp_beats_the_age_of_the_pod() -> None:
    old, young = START - 50, START + 5
    for created, counted in ((old, 0), (young, 9)):
        labels = (("outcome", "ok"),)
        series = [Series("c-0", "c1", REQUESTS, labels, ((START + 20, 9.0),), created=created)]
        frame = read(plan(), series, {}, {}, ()).frames[0]
        assert advance(plan(), None, frame, None, ()).n == counted


def test_labels_of_the_cohort_count_from_nought_whenever_the_pod_began() -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    pod.label("s1", 900, 100, cohort="earlier")
    pod.label("s1", 8, 2)
    pod.label("c1", 3, 1)
    pod.scrape(START)
    assert [s.labels for s in steps(fleet, "s-0")] == [(8, 2, 3, 1)]


def test_a_label_set_that_appears_later_began_at_nought() -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    del pod.counts[REQUESTS, "s1", (("outcome", "timeout"),)]
    pod.serve(10)
    pod.scrape(START)
    pod.serve(4, bad=4, outcome="client_error")
    pod.counts[REQUESTS, "s1", (("outcome", "timeout"),)] = 6
    pod.scrape(START + 15)
    assert (steps(fleet, "s-0")[-1].n, steps(fleet, "s-0")[-1].bad) == (10, 10)


def test_a_gap_of_more_than_six_hours_is_dropped_and_reported() -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    pod.scrape(START)
    pod.serve(500, bad=100)
    pod.label("s1", 50, 50)
    pod.scrape(START + 6 * 3600 + 1)
    last = steps(fleet, "s-0")[-1]
    assert (last.n, last.bad, last.labels) == (0, 0, (0, 0, 0, 0))
    assert last.lost == (START, START + 6 * 3600 + 1)
    evidence = update(plan(), start(plan()), fleet.series(), fleet.facts(), START + 6 * 3600 + 2)
    assert evidence.gap == last.lost


def test_buckets_are_based_anew_where_one_is_missing() -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    watch = (31, 32, 97)
    for i in range(5):
        pod.serve(10, seconds=[0.02] * 10)
        if i == 2:
            saved = pod.counts.pop((LATENCY, "s1", (("le", "+Inf"),)))
            pod.scrape(START + 15 * i)
            pod.counts[LATENCY, "s1", (("le", "+Inf"),)] = saved
        else:
            pod.scrape(START + 15 * i)
    assert [s.buckets for s in steps(fleet, "s-0", watch=watch)] == [None, (0, 10, 10), None, None, (0, 10, 10)]


def test_a_scrape_is_used_once_all_its_metrics_are_there() -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    for i in range(3):
        pod.serve(10)
        pod.scrape(START + 15 * i)
    torn = [
        Series(s.pod, s.revision, s.name, s.labels, s.points[: 2 if s.name == REQUESTS else 3]) for s in fleet.series()
    ]
    assert [f.at for f in read(plan(), torn, {}, fleet.facts(), ()).frames] == [START, START + 15]


def test_samples_that_are_no_numbers_are_passed_over() -> None:
    points = ((START, 5.0), (START + 15, float("nan")), (START + 20, -1.0), (START + 30, 9.0))
    series = [Series("s-0", "s1", REQUESTS, (("outcome", "ok"),), points)]
    assert [f.outcomes for f in read(plan(), series, {}, {}, ()).frames] == [{"ok": 5}, {"ok": 9}]


def test_other_revisions_and_other_metrics_are_none_of_our_business() -> None:
    points = ((START, 5.0),)
    series = [
        Series("x-0", "other", REQUESTS, (("outcome", "ok"),), points),
        Series("s-0", "s1", "up", (), points),
        Series("s-0", "s1", LATENCY, (("le", "0.123"),), points),
        Series("s-0", "s1", FEEDBACK, (("cohort", "run"), ("result", "unsure")), points),
    ]
    assert read(plan(), series, {}, {}, ()).frames == []


def doubled(metric: str) -> tuple[Plan, Evidence, Fleet]:
    fleet = Fleet()
    for name, revision in (("s-0", "s1"), ("c-0", "c1")):
        fleet.add(name, revision).serve(300)
        fleet.pods[name].label(revision, 9, 1)
    fleet.scrape(START)
    extra = [s for s in fleet.series() if s.name == metric and s.pod == "c-0"]
    chosen = plan()
    return chosen, update(chosen, start(chosen), [*fleet.series(), *extra], fleet.facts(), START + 1), fleet


@pytest.mark.parametrize(
    ("metric", "blinded"),
    [(REQUESTS, {"errors", "latency"}), (LATENCY, {"latency"}), (FEEDBACK, {"accuracy"})],
)
def test_two_series_for_one_counter_cannot_be_measured(metric: str, blinded: set[str]) -> None:
    chosen, evidence, fleet = doubled(metric)
    found = {j.name: j for j in judge(chosen, evidence, START + 60)}
    assert {n for n, j in found.items() if j.reason == "DuplicateSeries"} == blinded
    assert all(found[n].verdict == "CannotMeasure" and "c-0" in found[n].message for n in blinded)
    assert "c-0" not in evidence.cursors
    quiet = update(chosen, evidence, [], fleet.facts(), START + 5)
    assert {f.signal for f in quiet.faults} == blinded
    healed = update(chosen, quiet, fleet.series(), fleet.facts(), START + 9)
    assert healed.faults == ()
    assert "c-0" in healed.cursors


def test_more_than_64_pods_an_arm_are_read_as_a_fixed_subset() -> None:
    fleet = Fleet()
    for i in range(70):
        fleet.add(f"s-{i}", "s1").serve(5)
    fleet.add("c-0", "c1").serve(5)
    fleet.scrape(START)
    chosen = plan(ACCURACY, ERRORS, LATENCY_GATE)
    whole = update(chosen, start(chosen), fleet.series(), fleet.facts(), START)
    assert sum(c.arm == "stable" for c in whole.cursors.values()) == 64
    assert whole.partial
    reversed_order = update(chosen, start(chosen), fleet.series()[::-1], fleet.facts(), START)
    assert reversed_order.cursors.keys() == whole.cursors.keys()
    fleet.scrape(START + 15)
    assert update(chosen, whole, fleet.series(), fleet.facts(), START).cursors.keys() == whole.cursors.keys()
