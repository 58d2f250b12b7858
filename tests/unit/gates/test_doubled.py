"""A pod scraped twice: nobody can tell which series is right, until one of them is over."""

from __future__ import annotations

from penstock.adapters.samples import joined
from penstock.core.gates.evidence import Series, update
from tests.unit.gates.fleet import START
from tests.unit.gates.story import story


class TwoJobs:
    """Pods that a second job scrapes too, from `began` to `ended` (seconds after START)."""

    def __init__(self, began: float, ended: float, only: str = "") -> None:
        self.told, self.only = story(stable=1), only
        self.began, self.ended = began, ended
        self.second: dict[tuple[str, str, str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}

    def tick(self, times: int, bad: int = 0) -> set[str]:
        told = self.told
        for _ in range(times):
            told.at += 15
            for pod in told.fleet.pods.values():
                if pod.name.startswith(self.only) and self.began <= told.at - START <= self.ended:
                    for key, value in pod.counts.items():
                        self.second.setdefault((pod.name, *key), []).append((told.at - 7, float(value)))
                pod.serve(10, bad=bad)
                pod.scrape(told.at)
            series = told.fleet.series(told.at - 21_600)
            series += [
                Series(pod, revision, name, labels, tuple(points))
                for (pod, name, revision, labels), points in self.second.items()
            ]
            told.evidence = update(told.plan, told.evidence, joined(series), told.fleet.facts(), told.at)
        return {str(f.reason) for f in told.evidence.faults}


def test_a_second_series_blinds_while_it_goes_on_and_for_a_short_while_after() -> None:
    both = TwoJobs(300, 900)
    assert both.tick(19) == set()
    assert both.tick(41) == {"DuplicateSeries"}
    assert both.tick(9) == {"DuplicateSeries"}
    assert both.tick(2) == set()
    assert both.told.errors().blocks > 4


def test_where_the_first_series_ends_the_second_goes_on_with_its_counters() -> None:
    both = TwoJobs(300, 3000)
    both.tick(20)
    before = both.told.errors()
    for pod in both.told.fleet.pods.values():
        pod.scrape = lambda at: None  # type: ignore[method-assign]
    both.tick(60)
    after = both.told.errors()
    assert after.stable_n - before.stable_n >= 500
    assert after.stable_bad == after.canary_bad == 0


def test_a_pod_that_is_gone_blinds_nobody_with_its_two_series() -> None:
    both = TwoJobs(300, 600)
    both.tick(40)
    gone = both.told.fleet.add("s-9", "s1")
    both.tick(8)
    both.second.update({("s-9", *key): [(at - 7, v) for at, v in points] for key, points in gone.points.items()})
    assert both.tick(1) == {"DuplicateSeries"}
    gone.scrape = lambda at: None  # type: ignore[method-assign]
    both.tick(12)
    assert both.tick(1) == set()


def test_what_a_pod_tells_late_is_compared_with_the_same_time_of_the_others() -> None:
    """The canary's samples of the overlap come when stable's are long taken in: the block is as long for both."""
    both = TwoJobs(300, 900, only="c")
    both.tick(30)
    both.tick(20, bad=6)
    for _ in range(40):
        both.tick(1)
        record = both.told.errors()
        assert (record.canary_n, record.canary_bad) == (record.stable_n, record.stable_bad)
    assert (record.canary_n > 500, record.canary_bad) == (True, 120)
