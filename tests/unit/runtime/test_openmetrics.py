"""OpenMetrics: valid by its own parser, the same series as Prometheus' format, with traces as exemplars."""

from __future__ import annotations

import math

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.openmetrics import is_wanted, openmetrics
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.otlp import Collector
from tests.unit.runtime.process import SETOSA, VIRGINICA, Reply, Server, call, iris_request
from tests.unit.runtime.scrape import families as plain_families

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def scrape(server: Server, accept: str = PROMETHEUS) -> Reply:
    reply = call(server.metrics_port, "GET", "/metrics", headers={"Accept": accept})
    assert reply.status == 200
    return reply


def parsed(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]


def written(text: str) -> dict[str, float]:
    """Every series as it is written, not as a parser would name it."""
    lines = (line.partition(" # ")[0] for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize("model", ["iris", "regression"])
def test_both_formats_have_the_same_series(start_server: Start, model: str) -> None:
    server = start_server(model, PENSTOCK_REVISION='quo"ted\\').ready()
    for row in (SETOSA, VIRGINICA):
        prediction = server.infer(iris_request(row)).headers["penstock-prediction-id"]
        assert server.feedback([{"id": prediction, "label": 1}]).json["accepted"] == 1
    open_metrics = scrape(server)
    assert open_metrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    text = open_metrics.body.decode()
    assert text.endswith("\n# EOF\n")
    found = parsed(text)
    plain = server.metrics_text()
    assert written(text) == written(plain)
    types = {name: family.type for name, family in found.items()}
    plain_types = {name: family.type for name, family in plain_families(plain).items()}
    unknown = {name for name, kind in types.items() if kind == "unknown"}
    assert unknown == {
        "penstock_feedback_error_sum", "penstock_feedback_error_squared_sum", "penstock_feedback_error_count",
        "penstock_prediction_value_bucket", "penstock_prediction_value_sum", "penstock_prediction_value_count",
    }  # fmt: skip
    assert {name: kind for name, kind in types.items() if name not in unknown} == {
        name: kind for name, kind in plain_types.items() if name not in unknown | {"penstock_prediction_value"}
    }


def test_several_models_keep_their_families_together() -> None:
    parts = [lines for name in ("a", "b") for lines in (Metrics(name, "r").lines(), Tally(name, "r", "none").lines())]
    for family in parsed(openmetrics(parts, {}).decode()).values():
        assert {item.labels["model"] for item in family.samples} in ({"a", "b"}, set()), family.name


def test_buckets_carry_the_last_recorded_trace(start_server: Start) -> None:
    with Collector() as collector:
        server = start_server("iris", "--otlp-endpoint", collector.url).ready()
        ids = [f"{number:032x}" for number in (1, 2, 3)]
        for trace, flags in zip(ids, ("01", "01", "00"), strict=True):
            parent = f"00-{trace}-b7ad6b7169203331-{flags}"
            assert server.infer(iris_request(SETOSA), traceparent=parent).status == 200
        text = scrape(server).body.decode()
        exemplars = [
            (item, item.exemplar) for family in parsed(text).values() for item in family.samples if item.exemplar
        ]
        assert {item.name for item, _ in exemplars} == {"penstock_request_duration_seconds_bucket"}
        assert ids[1] in {exemplar.labels["trace_id"] for _, exemplar in exemplars}
        assert ids[2] not in {exemplar.labels["trace_id"] for _, exemplar in exemplars}
        bounds = sorted(
            float(item.labels["le"])
            for item in parsed(text)["penstock_request_duration_seconds"].samples
            if item.name.endswith("_bucket")
        )
        for item, exemplar in exemplars:
            bound = float(item.labels["le"])
            below = max((each for each in bounds if each < bound), default=-math.inf)
            assert below < exemplar.value <= bound
        assert "trace_id" not in server.metrics_text()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", True),
        ("text/plain,application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("text/plain;version=0.0.4", False),
        ("*/*", False),
        ("", False),
        (";;,=;q", False),
    ],
)
def test_which_format_is_wanted(accept: str, wanted: bool) -> None:
    assert is_wanted(accept.encode()) is wanted
