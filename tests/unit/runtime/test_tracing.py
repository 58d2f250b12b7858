"""Traces: sent to a collector by OTLP, part of the caller's trace, and never in a request's way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock_runtime.server.settings import SettingsError
from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.otlp import PARENT, TRACE, Collector, values
from tests.unit.runtime.process import SETOSA, SOURCES, ServerProcess, ServerThread, iris_request, tensor
from tests.unit.runtime.test_settings import settings

ROOT = "POST /v2/models/{model}/infer"


def test_a_request_is_part_of_its_callers_trace(start_server: Start, collector: Collector) -> None:
    server = start_server("iris", "--otlp-endpoint", collector.url, PENSTOCK_REVISION="r7").ready()
    before = time.time_ns()
    reply = server.infer(iris_request(SETOSA), traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="shop=1")
    after = time.time_ns()
    assert reply.status == 200
    spans = collector.wait(3)
    root, queue, inference = spans[ROOT], spans["queue"], spans["inference"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert root.parent_span_id.hex() == PARENT
    assert root.trace_state == "shop=1"
    assert queue.parent_span_id == inference.parent_span_id == root.span_id
    assert before <= root.start_time_unix_nano <= queue.start_time_unix_nano <= queue.end_time_unix_nano
    assert queue.end_time_unix_nano <= inference.start_time_unix_nano < inference.end_time_unix_nano
    assert inference.end_time_unix_nano <= root.end_time_unix_nano <= after
    assert root.kind == root.SPAN_KIND_SERVER
    assert values(root.attributes) == {
        "http.request.method": "POST", "http.route": "/v2/models/{model}/infer", "url.path": "/v2/models/m/infer",
        "http.request.body.size": len(json.dumps(iris_request(SETOSA))), "http.response.status_code": 200,
        "http.response.body.size": len(reply.body), "penstock.revision": "r7",
    }  # fmt: skip
    assert values(inference.attributes) == {"penstock.batch.rows": 1}
    resource = values(collector.requests[0].resource_spans[0].resource.attributes)
    assert (resource["service.name"], resource["penstock.revision"]) == ("penstock-runtime", "r7")


def test_the_callers_decision_not_to_record_is_respected(start_server: Start, collector: Collector) -> None:
    server = start_server("iris", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url + "/").ready()
    assert server.infer(iris_request(SETOSA), traceparent=f"00-{TRACE}-{PARENT}-00").status == 200
    assert server.infer(iris_request(SETOSA)).status == 200
    collector.wait(3)
    server.kill()
    assert len(collector.spans()) == 3
    assert TRACE not in {span.trace_id.hex() for span in collector.spans()}


def test_the_share_that_begins_here_can_be_set(
    start_server: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    server = start_server("iris", "--otlp-endpoint", collector.url, "--access-log", "1").ready()
    assert server.infer(iris_request(SETOSA)).status == 200
    assert "trace_id" not in server.wait_log("request")
    assert server.infer(iris_request(SETOSA), traceparent=f"00-{TRACE}-{PARENT}-01").status == 200
    assert server.wait_log("request")["trace_id"] == TRACE
    assert {span.trace_id.hex() for span in collector.wait(3).values()} == {TRACE}


def test_failures_are_marked_and_only_inference_is_traced(start_server: Start, collector: Collector) -> None:
    server = start_server("picky", "--otlp-endpoint", collector.url).ready()
    server.get("/v2/health/ready")
    server.get("/v2/models/m")
    assert server.infer({"inputs": [tensor("x", "FP32", [3], [1, 2, 3])]}).status == 500
    span = collector.wait(1)[ROOT]
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert values(span.attributes)["error.type"] == "500"
    assert server.infer({}).status == 400
    collector.wait(2)
    server.kill()
    assert [each.name for each in collector.spans()] == [ROOT, ROOT]
    assert collector.spans()[1].status.code == span.status.STATUS_CODE_UNSET


def test_spans_in_flight_are_sent_at_the_end(
    start_process: StartProcess, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    server = start_process("iris", "--otlp-endpoint", collector.url, "--drain-seconds", "0").ready()
    for _ in range(5):
        assert server.infer(iris_request(SETOSA)).status == 200
    assert collector.spans() == []
    server.terminate()
    assert server.wait_exit() == 0
    assert len(collector.spans()) == 15


def test_a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_end(
    start_process: StartProcess, collector: Collector
) -> None:
    collector.go.clear()
    server = start_process("iris", "--otlp-endpoint", collector.url, "--drain-seconds", "0").ready()
    for _ in range(1000):  # more spans than may wait
        assert server.infer(iris_request(SETOSA)).status == 200
    begun = time.monotonic()
    server.terminate()
    assert server.wait_exit() == 0
    assert time.monotonic() - begun < 15


def test_nothing_is_imported_unless_asked_for() -> None:
    told = "import sys; import penstock_runtime.server.process; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run(
        [sys.executable, "-c", told], env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_missing_packages_are_said(tmp_path: Path, models: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError\n")
    told = tmp_path / "termination"
    server = ServerProcess(
        "--model-path", str(models / "iris"), "--otlp-endpoint", "http://localhost:1", "--termination-log", str(told),
        env={"PYTHONPATH": f"{tmp_path}:{SOURCES}"},
    )  # fmt: skip
    assert server.wait_exit() == 1
    message = json.loads(told.read_text())
    assert message["reason"] == "InvalidConfiguration"
    assert "OpenTelemetry is not installed; install penstock[runtime,runtime-tracing]" in message["message"]


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/base"}, "http://c:4318/base/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/x"}, "https://t/x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, None),
    ],
)  # fmt: skip
def test_opentelemetrys_own_variables_are_heeded(env: dict[str, str], url: str | None) -> None:
    assert settings(**env).observing.traces_url == url


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "'collector:4317' is no address of a collector"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "is not spoken"),
    ],
)
def test_what_cannot_be_sent_to(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ServerThread("--model-path", "m.onnx", env=env)
