"""The measurement contract: which series there are, what counts, and that Prometheus can read it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.metrics import DURATION_BOUNDS, Histogram, Metrics, exposition
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, call, iris_request
from tests.unit.runtime.scrape import families, requests_by_outcome, sample

CONTRACT = {
    "penstock_requests": "counter",
    "penstock_request_duration_seconds": "histogram",
    "penstock_inference_duration_seconds": "histogram",
    "penstock_queue_duration_seconds": "histogram",
    "penstock_batch_size": "histogram",
    "penstock_feedback": "counter",
    "penstock_feedback_class": "counter",
    "penstock_feedback_error_sum": "counter",
    "penstock_feedback_error_squared_sum": "counter",
    "penstock_feedback_error_count": "counter",
    "penstock_feedback_rejected": "counter",
    "penstock_forwarded": "counter",
    "penstock_forward_duration_seconds": "histogram",
    "penstock_shadow_pairs": "counter",
    "penstock_shadow_dropped": "counter",
    "penstock_shadow_requests": "counter",
    "penstock_prediction": "counter",
    "penstock_prediction_value": "histogram",
    "penstock_model_loaded": "gauge",
    "penstock_model_loads": "counter",
    "penstock_model_load_seconds": "gauge",
}


def text(metrics: Metrics, tally: Tally | None = None) -> str:
    return exposition((metrics.lines(), tally.lines() if tally else ())).decode()


def test_a_fresh_server_shows_every_family_and_label_set_at_zero(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_REVISION="b8d4f7c2xk", PENSTOCK_MODEL="fraud").ready()
    for _ in range(3):
        server.get("/v2/health/ready")
        server.get("/v2/models/m")
        call(server.http_port, "POST", "/v2/models/other/infer", {})
    found = families(server.metrics_text())
    assert {name: family.type for name, family in found.items()} == CONTRACT
    for family in found.values():
        for item in family.samples:
            assert item.labels["model"] == "m", "the command line names the model"
            assert item.labels["revision"] == "b8d4f7c2xk"
            if not item.name.startswith("penstock_model_load"):
                assert item.value == 0, item
    assert sample(server, "penstock_model_loaded") == 1
    assert 0 < sample(server, "penstock_model_load_seconds") < 60
    assert set(requests_by_outcome(server)) == {"ok", "client_error", "server_error", "rejected", "timeout"}
    labels = {s.labels["result"] for s in found["penstock_forwarded"].samples}
    assert labels == {"forwarded", "fallback", "timeout"}
    labels = {s.labels["result"] for s in found["penstock_shadow_pairs"].samples}
    assert labels == {"agree", "disagree", "error"}
    results = {(s.labels["result"], s.labels["cohort"]) for s in found["penstock_feedback"].samples}
    assert results == {("correct", "none"), ("incorrect", "none")}
    reasons = {s.labels["reason"] for s in found["penstock_feedback_rejected"].samples}
    assert reasons == {"unmatched", "duplicate", "expired"}


def test_only_successes_are_timed_and_only_this_models_infer_path_counts(start_server: Start) -> None:
    server = start_server("iris").ready()
    for _ in range(4):
        assert server.infer(iris_request(SETOSA, SETOSA)).status == 200
    server.infer({})
    call(server.http_port, "POST", "/v2/models/m/versions/9/infer", {})
    call(server.http_port, "GET", "/v2/models/m/infer")
    assert requests_by_outcome(server) == {
        "ok": 4, "client_error": 3, "server_error": 0, "rejected": 0, "timeout": 0,
    }  # fmt: skip
    for name in ("request_duration_seconds", "inference_duration_seconds", "queue_duration_seconds"):
        assert sample(server, f"penstock_{name}_count") == 4
    assert sample(server, "penstock_batch_size_sum") == 8
    assert sample(server, "penstock_prediction_total", **{"class": "0"}) == 8


def test_the_grid_is_the_contracts() -> None:
    assert len(DURATION_BOUNDS) == 97
    assert DURATION_BOUNDS[0] == 0.001
    assert 9 < DURATION_BOUNDS[-1] < 10
    labels = [s.labels["le"] for s in families(text(Metrics("m", "r")))["penstock_request_duration_seconds"].samples
              if "le" in s.labels]  # fmt: skip
    assert labels == [repr(round(0.001 * 1.1**k, 9)) for k in range(97)] + ["+Inf"]


@given(st.lists(st.floats(0, 20), max_size=50))
def test_a_histogram_counts_what_is_at_most_its_bound(values: list[float]) -> None:
    histogram = Histogram(DURATION_BOUNDS)
    for value in values:
        histogram.observe(value)
    parsed = families("# TYPE h histogram\n" + "\n".join(histogram.lines("h", 'a="b"')) + "\n")["h"].samples
    for item in parsed:
        if item.name == "h_bucket":
            bound = math.inf if item.labels["le"] == "+Inf" else float(item.labels["le"])
            assert item.value == sum(value <= bound for value in values)
    assert {s.name: s.value for s in parsed}["h_count"] == len(values)
    assert math.isclose({s.name: s.value for s in parsed}["h_sum"], sum(values), abs_tol=1e-9)


@given(st.lists(st.floats(0, 20), max_size=50), st.floats(0, 20), st.integers(0, 50))
def test_many_observations_count_as_each_by_itself(values: list[float], value: float, times: int) -> None:
    many, each = Histogram(DURATION_BOUNDS), Histogram(DURATION_BOUNDS)
    many.observe_each(values)
    many.observe_times(value, times)
    for seconds in (*values, *[value] * times):
        each.observe(seconds)
    assert many.buckets() == each.buckets()
    assert math.isclose(many.sum, each.sum, abs_tol=1e-9)


@given(st.text(max_size=80), st.text(max_size=10))
def test_any_text_is_a_label_that_comes_back(label: str, revision: str) -> None:
    metrics = Metrics("m", revision)
    metrics.count_predictions([label, label, label])
    shown = families(text(metrics))["penstock_prediction"].samples
    assert [(s.labels["class"], s.labels["revision"], s.value) for s in shown] == [(label[:64], revision, 3.0)]


def test_classes_beyond_twenty_are_counted_together() -> None:
    metrics = Metrics("m", "r")
    for number in range(50):
        metrics.count_predictions([number])
    shown = families(text(metrics))["penstock_prediction"].samples
    assert len(shown) == 21
    assert {s.labels["class"]: s.value for s in shown}["other"] == 30


def test_numbers_are_a_histogram_not_classes() -> None:
    metrics = Metrics("m", "r")
    metrics.count_predictions([0.5, -3.0, 12.0])
    found = families(text(metrics))
    values = {s.labels.get("le"): s.value for s in found["penstock_prediction_value"].samples}
    assert (values["0.0"], values["1.0"], values["+Inf"]) == (1, 2, 3)
    assert not found["penstock_prediction"].samples


def test_the_metrics_port_serves_metrics_alone(start_server: Start) -> None:
    server = start_server("iris").ready()
    reply = call(server.metrics_port, "GET", "/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert call(server.metrics_port, "GET", "/v2/health/live").status == 404
    assert call(server.metrics_port, "POST", "/metrics").status == 405
    assert call(server.http_port, "GET", "/metrics").status == 404
    assert call(server.http_port, "POST", "/v2/models/m/feedback", []).status == 404
