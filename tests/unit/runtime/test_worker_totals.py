"""The metrics of several workers added up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.server.metrics import Metrics, exposition
from penstock_runtime.server.workers.totals import add_up
from tests.unit.runtime.scrape import families

seconds = st.floats(0, 20, allow_nan=False)


def text(requests: int, durations: list[float], classes: list[str], loaded: int) -> str:
    metrics = Metrics("m", "r")
    metrics.requests["ok"] = requests
    for duration in durations:
        metrics.request_seconds.observe(duration)
    metrics.classes = Counter(classes)
    metrics.model_loaded = loaded
    return exposition((metrics.lines(),)).decode()


worker = st.builds(
    text, st.integers(0, 2**40), st.lists(seconds, max_size=5), st.lists(st.sampled_from(["a", 'b"}\\ 1'])), st.just(1)
)


def samples(exposed: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (item.name, tuple(sorted(item.labels.items()))): item.value
        for family in families(exposed).values()
        for item in family.samples
    }


@given(st.lists(worker, min_size=1, max_size=4))
def test_counters_and_histograms_are_added_series_by_series(workers: list[str]) -> None:
    total = samples(add_up(workers).decode())
    parts = [samples(each) for each in workers]
    assert total.keys() == set().union(*parts)
    for series, value in total.items():
        each = [part.get(series, 0.0) for part in parts]
        if series[0].startswith("penstock_model_load"):
            continue
        assert abs(value - sum(each)) <= 1e-9 * abs(value), series


@given(worker)
def test_one_worker_says_what_it_says_alone(alone: str) -> None:
    assert samples(add_up([alone]).decode()) == samples(alone)
    assert list(families(add_up([alone]).decode())) == list(families(alone))


def test_a_server_is_loaded_once_all_its_workers_are() -> None:
    for loaded, expected in ((1, 1), (0, 0)):
        total = samples(add_up([text(0, [], [], 1), text(0, [], [], loaded)]).decode())
        assert total["penstock_model_loaded", (("model", "m"), ("revision", "r"))] == expected
