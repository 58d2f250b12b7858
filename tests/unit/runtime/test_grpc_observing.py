"""Calls over gRPC in the access log and in traces: which, what is told of them, and that nothing else is different."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from penstock_runtime.engine.batchable import Batching
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc.inference import Inference
from penstock_runtime.server.repository import loading
from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.forwarding import tell, where
from tests.unit.runtime.grpc_client import INFER, Client, iris_raw, slow_request, typed, typed_request
from tests.unit.runtime.grpc_stub import Stub
from tests.unit.runtime.otlp import PARENT, TRACE, Collector, values
from tests.unit.runtime.process import DEADLINE, SETOSA, Server, call, iris_request
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.test_grpc_limits import LONG, Silent
from tests.unit.runtime.test_grpc_turn import at_once
from tests.unit.runtime.test_openmetrics import parsed, scrape

ROOT, HTTP_ROOT = "inference.GRPCInferenceService/ModelInfer", "POST /v2/models/{model}/infer"
TOKEN = 32 * "t"


def messages(server: Server) -> list[str]:
    """What was logged up to the end of the server."""
    server.kill()
    return [line["msg"] for line in iter(server.lines.get_nowait, None)]


def test_without_it_nothing_is_logged(start_process: StartProcess) -> None:
    server = start_process("iris").ready()
    with Client(server.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK
    assert "request" not in messages(server)


def test_a_line_tells_of_a_call_and_nothing_of_its_content(start_process: StartProcess) -> None:
    server = start_process("iris", "--access-log", "1", PENSTOCK_REVISION="r7").ready()
    request = iris_raw([1234.5, 3.5, 1.4, 0.2], id="order-17")
    secret = {"authorization": "Bearer hush", "x-user": "somebody", "traceparent": f"00-{TRACE}-{PARENT}-00"}
    with Client(server.grpc_port) as client:
        answer = client.infer(request, DEADLINE, **secret).answer
    line = server.wait_log("request")
    assert 0 < line.pop("inference_seconds") <= line.pop("seconds") < 60
    assert line.pop("queue_seconds") >= 0
    assert line.pop("time")
    assert line == {
        "level": "info", "msg": "request", "protocol": "grpc", "method": INFER, "model": "m", "version": "1",
        "code": "OK", "bytes_in": request.ByteSize(), "bytes_out": answer.ByteSize(), "revision": "r7",
        "id": "order-17", "trace_id": TRACE,
    }  # fmt: skip


def test_refusals_are_told_too_and_other_calls_are_not(start_process: StartProcess) -> None:
    server = start_process("iris", "--access-log", "1", PENSTOCK_SERVING='{"maxBodyBytes":"8Ki"}').ready()
    with Client(server.grpc_port) as client:
        assert client.ask("ModelMetadata", pb.ModelMetadataRequest(name="m")).code == StatusCode.OK
        assert client.check().code == StatusCode.OK

        def told(payload: bytes) -> dict[str, object]:
            outcome = client.call(INFER, payload, pb.ModelInferResponse, metadata=(("traceparent", "00-nonsense"),))
            line = server.wait_log("request")
            assert line["code"] == outcome.code.name
            assert not {"id", "trace_id", "inference_seconds"} & set(line)
            return {name: line.get(name) for name in ("code", "model", "version", "bytes_in")}

        for request, code, version in (
            (iris_raw(SETOSA[:3]), "INVALID_ARGUMENT", "1"),
            (iris_raw(SETOSA, model="nobody"), "NOT_FOUND", None),
            (iris_raw(SETOSA, model_version="9"), "NOT_FOUND", "9"),
        ):
            payload = request.SerializeToString()
            expected = {"code": code, "model": request.model_name, "version": version, "bytes_in": len(payload)}
            assert told(payload) == expected
        assert told(b"\xff") == {"code": "INVALID_ARGUMENT", "model": "m", "version": None, "bytes_in": 1}
        assert client.infer(iris_raw(SETOSA, id=65 * "x")).code == StatusCode.OK
        assert "id" not in server.wait_log("request")


def test_a_message_that_is_too_large_is_told(start_process: StartProcess) -> None:
    server = start_process("iris", "--access-log", "1", PENSTOCK_SERVING='{"maxBodyBytes":"8Ki"}').ready()
    with Client(server.grpc_port) as client:
        assert client.infer(iris_raw(*[SETOSA] * 1000)).code == StatusCode.RESOURCE_EXHAUSTED
    line = server.wait_log("request")
    # The core refuses it, and does not say why.
    assert (line["code"], line["model"], line["bytes_in"], line["level"]) == ("CANCELLED", "m", 0, "info")


def test_failures_are_told_whatever_the_share(start_process: StartProcess) -> None:
    server = start_process("picky", "--access-log", "1e-9").ready()
    with Client(server.grpc_port) as client:
        for _ in range(50):
            client.infer(typed_request(typed("x", "FP32", [4], [1, 2, 3, 4])))
        client.infer(typed_request(typed("x", "FP32", [3], [1, 2, 3]), id="odd"))
    line = server.wait_log("request")
    assert (line["code"], line["level"], line["id"], line["revision"]) == ("INTERNAL", "error", "odd", "none")


def test_what_a_token_refuses_is_told_and_counted_nowhere(start_process: StartProcess, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(TOKEN)
    server = start_process("iris", "--access-log", "1", "--token-file", str(tmp_path / "tokens")).ready()
    with Client(server.grpc_port) as client:
        assert client.ask("ServerMetadata").code == StatusCode.UNAUTHENTICATED
        assert client.infer(iris_raw(SETOSA), authorization="Bearer wrong").code == StatusCode.UNAUTHENTICATED
        line = server.wait_log("request")
        assert (line["method"], line["code"], line["bytes_in"]) == (INFER, "UNAUTHENTICATED", 0)
        assert not {"model", "revision"} & set(line)
        assert client.infer(iris_raw(SETOSA), authorization=f"Bearer {TOKEN}").code == StatusCode.OK
        assert server.wait_log("request")["code"] == "OK"
    assert requests_by_outcome(server) == {"ok": 1, "client_error": 0, "server_error": 0, "rejected": 0, "timeout": 0}


def test_how_it_ended_is_told_of_calls_without_an_answer(start_process: StartProcess) -> None:
    # 64 threads: one run at a time.
    server = start_process("slow", "--access-log", "1", PENSTOCK_SERVING='{"maxQueue":1,"threads":64}').ready()

    def codes(count: int) -> list[tuple[object, ...]]:
        lines = [server.wait_log("request") for _ in range(count)]
        return sorted((line["code"], line["level"], line["bytes_out"]) for line in lines)

    with Client(server.grpc_port) as client:
        with Silent(client) as silent:
            pass
        assert silent.code == StatusCode.INVALID_ARGUMENT
        assert codes(1) == [("INVALID_ARGUMENT", "info", 0)]
        under_way = [client.start(slow_request(LONG)) for _ in range(3)]
        line = server.wait_log("request")
        assert (line["code"], line["model"], line["level"]) == ("RESOURCE_EXHAUSTED", "m", "info")
        for each in under_way:
            each.cancel()
        assert codes(2) == [("CANCELLED", "info", 0)] * 2
        # Until the runs that nobody waits for have stopped.
        while client.infer(slow_request(LONG), timeout=0.3).code == StatusCode.RESOURCE_EXHAUSTED:
            assert codes(1) == [("RESOURCE_EXHAUSTED", "info", 0)]
        assert codes(1) == [("DEADLINE_EXCEEDED", "error", 0)]


def test_the_share_can_be_changed_while_it_serves(start_process: StartProcess) -> None:
    server = start_process("iris").ready()
    with Client(server.grpc_port) as client:
        client.infer(iris_raw(SETOSA, id="before"))
        assert call(server.admin_port, "PUT", "/v2/logging", {"access_log": 1}).status == 200
        client.infer(iris_raw(SETOSA, id="between"))
        assert server.wait_log("request")["id"] == "between"
        assert call(server.admin_port, "DELETE", "/v2/logging").status == 200
        client.infer(iris_raw(SETOSA, id="after"))
    assert "request" not in messages(server)


def test_calls_are_observed_only_while_there_is_something_to_tell(start_server: Start) -> None:
    server = start_server("iris").ready()
    listener = server._process._grpc
    assert listener is not None
    inferences: Any = listener._services.inferences
    kinds = []
    for share in (0, 0.5, 0):
        assert call(server.admin_port, "PUT", "/v2/logging", {"access_log": share}).status == 200
        kinds.append(inferences.kind is Inference)
    assert kinds == [True, False, True]


def test_a_call_is_part_of_its_callers_trace(start_server: Start, collector: Collector) -> None:
    server = start_server("iris", "--otlp-endpoint", collector.url, PENSTOCK_REVISION="r7").ready()
    before = time.time_ns()
    request = iris_raw(SETOSA)
    with Client(server.grpc_port) as client:
        answer = client.infer(request, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="shop=1").answer
    after = time.time_ns()
    spans = collector.wait(3)
    root, queue, inference = spans[ROOT], spans["queue"], spans["inference"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert (root.parent_span_id.hex(), root.trace_state) == (PARENT, "shop=1")
    assert queue.parent_span_id == inference.parent_span_id == root.span_id
    assert before <= root.start_time_unix_nano <= queue.start_time_unix_nano <= queue.end_time_unix_nano
    assert queue.end_time_unix_nano <= inference.start_time_unix_nano < inference.end_time_unix_nano
    assert inference.end_time_unix_nano <= root.end_time_unix_nano <= after
    assert root.kind == root.SPAN_KIND_SERVER
    assert values(root.attributes) == {
        "rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0, "penstock.model": "m", "penstock.request.bytes": request.ByteSize(),
        "penstock.response.bytes": answer.ByteSize(), "penstock.revision": "r7",
    }  # fmt: skip
    assert values(inference.attributes) == {"penstock.batch.rows": 1}


def test_the_callers_decision_and_the_sampler_hold(
    start_process: StartProcess, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    server = start_process("iris", "--otlp-endpoint", collector.url, "--access-log", "1").ready()
    with Client(server.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK
        assert "trace_id" not in server.wait_log("request")
        for flags in ("00", "01"):
            client.infer(iris_raw(SETOSA), traceparent=f"00-{TRACE}-{PARENT}-{flags}")
            assert server.wait_log("request")["trace_id"] == TRACE
    assert {span.trace_id.hex() for span in collector.wait(3).values()} == {TRACE}
    server.terminate()
    assert server.wait_exit() == 0
    assert len(collector.spans()) == 3


def test_failures_are_marked_and_only_inference_is_traced(start_server: Start, collector: Collector) -> None:
    server = start_server("picky", "--otlp-endpoint", collector.url).ready()
    with Client(server.grpc_port) as client:
        client.ask("ModelMetadata", pb.ModelMetadataRequest(name="m"))
        client.infer(typed_request(typed("x", "FP32", [3], [1, 2, 3])))
        failed = collector.wait(1)[ROOT]
        assert failed.status.code == failed.status.STATUS_CODE_ERROR
        told = values(failed.attributes)
        assert (told["error.type"], told["rpc.grpc.status_code"]) == ("INTERNAL", 13)
        client.infer(typed_request())
        collector.wait(2)
    server.kill()
    first, second = collector.spans()
    assert (first.name, second.name) == (ROOT, ROOT)
    assert second.status.code == failed.status.STATUS_CODE_UNSET
    assert values(second.attributes)["rpc.grpc.status_code"] == 3


def test_calls_of_one_turn_are_run_together_and_told_one_by_one(
    start_server: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "try_out", lambda *_: Batching(32, 1.0))
    server = start_server("iris", "--otlp-endpoint", collector.url, "--access-log", "0.5").ready()
    calls = at_once(server, monkeypatch, [iris_raw(SETOSA)] * 20)
    assert {each.code() for each in calls} == {StatusCode.OK}
    assert sample(server, "penstock_batch_size_count") < 20
    collector.wait(60)
    spans = collector.spans()
    roots = {span.span_id: span for span in spans if span.name == ROOT}
    assert len(roots) == len({span.trace_id for span in roots.values()}) == 20
    for name in ("queue", "inference"):
        children = [span for span in spans if span.name == name]
        assert {span.parent_span_id for span in children} == set(roots)
        for span in children:
            root = roots[span.parent_span_id]
            assert root.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= root.end_time_unix_nano
    rows = [values(span.attributes)["penstock.batch.rows"] for span in spans if span.name == "inference"]
    assert max(int(each) for each in rows) > 1


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_a_forwarded_request_is_one_trace(start_server: Start, collector: Collector, over: str) -> None:
    stable, canary = (
        start_server("iris", "--otlp-endpoint", collector.url, PENSTOCK_REVISION=name).ready()
        for name in ("stable", "canary")
    )
    assert tell(stable, **where(canary), share=1).status == 200

    def ask(**headers: str) -> None:
        if over == "http":
            assert stable.infer(iris_request(SETOSA), **headers).status == 200
            return
        with Client(stable.grpc_port) as client:
            assert client.infer(iris_raw(SETOSA), DEADLINE, **headers).metadata["penstock-revision"] == "canary"

    ask(traceparent=f"00-{TRACE}-{PARENT}-00")
    ask()
    ask(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="shop=1")
    collector.wait(8)
    stable.kill()
    canary.kill()
    spans = collector.spans()
    assert len(spans) == 8, "what its caller does not record is recorded nowhere"
    roots = [span for span in spans if span.name == {"http": HTTP_ROOT, "grpc": ROOT}[over]]
    assert len(roots) == 4
    by_id = {span.span_id: span for span in roots}
    behind = [span for span in roots if span.parent_span_id in by_id]
    before = [by_id[span.parent_span_id] for span in behind]
    assert len(behind) == 2
    for one, other in zip(before, behind, strict=True):
        assert one.trace_id == other.trace_id
        assert one.start_time_unix_nano <= other.start_time_unix_nano < other.end_time_unix_nano
    assert {span.parent_span_id.hex() for span in before} == {"", PARENT}
    assert {span.trace_state for span in behind} == {"", "shop=1"}


def test_a_forwarded_call_is_told_by_both(start_process: StartProcess) -> None:
    stable, canary = (
        start_process("iris", "--access-log", "1", PENSTOCK_REVISION=name).ready() for name in ("stable", "canary")
    )
    assert tell(stable, **where(canary), share=1).status == 200
    with Client(stable.grpc_port) as client:
        answer = client.infer(iris_raw(SETOSA, id="7"), traceparent=f"00-{TRACE}-{PARENT}-01").answer
    lines = [server.wait_log("request") for server in (stable, canary)]
    for line in lines:
        told = [line[name] for name in ("code", "model", "revision", "id", "trace_id", "bytes_out")]
        assert told == ["OK", "m", "canary", "7", TRACE, answer.ByteSize()]
    assert ["inference_seconds" in line for line in lines] == [False, True]
    assert lines[1]["seconds"] < lines[0]["seconds"]
    assert tell(stable, to="http://127.0.0.1:9", to_grpc="127.0.0.1:9", share=1).status == 200
    with Client(stable.grpc_port) as client:
        assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK
    line = stable.wait_log("request")
    assert (line["code"], line["revision"]) == ("OK", "stable")
    assert "inference_seconds" in line


def test_without_traces_the_callers_context_passes_as_it_came(start_process: StartProcess) -> None:
    server = start_process("iris", "--access-log", "1").ready()
    stub = Stub(lambda *_: pb.ModelInferResponse(id="there").SerializeToString())
    try:
        assert tell(server, to="http://127.0.0.1:9", to_grpc=stub.address, share=1).status == 200
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "shop=1"}
        with Client(server.grpc_port) as client:
            assert client.infer(iris_raw(SETOSA), DEADLINE, **sent).answer.id == "there"
        assert sent.items() <= set(stub.seen[0])
        line = server.wait_log("request")
        assert (line["code"], "revision" in line) == ("OK", False)
    finally:
        stub.close()


def test_buckets_carry_the_last_recorded_trace(start_server: Start, collector: Collector) -> None:
    server = start_server("iris", "--otlp-endpoint", collector.url).ready()
    ids = [f"{number:032x}" for number in (1, 2, 3, 4)]
    with Client(server.grpc_port) as client:
        for trace, flags, more in zip(
            ids, ("01", "01", "00", "01"), ({}, {}, {}, {"penstock-shadow": "1"}), strict=True
        ):
            outcome = client.infer(iris_raw(SETOSA), DEADLINE, traceparent=f"00-{trace}-{PARENT}-{flags}", **more)
            assert outcome.code == StatusCode.OK
    found = parsed(scrape(server).body.decode())["penstock_request_duration_seconds"]
    exemplars = {item.labels["le"]: item.exemplar for item in found.samples if item.exemplar}
    named = {exemplar.labels["trace_id"] for exemplar in exemplars.values()}
    assert ids[1] in named <= {ids[0], ids[1]}
    # Each lies in the bucket that its request was counted in.
    counts = {item.labels["le"]: item.value for item in found.samples if item.name.endswith("_bucket")}
    below = 0.0
    for bound, count in counts.items():
        assert (bound in exemplars) == (count > below)
        below = count
    stamps: list[Any] = [exemplar.timestamp for exemplar in exemplars.values()]
    assert all(abs(float(stamp) - time.time()) < 60 for stamp in stamps)
