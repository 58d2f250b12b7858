"""Shadowing of calls over gRPC: what is copied, that it is compared like a request over HTTP, and who counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc.metadata import passing
from penstock_runtime.server.shadow import shadower
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.forwarding import NONE, never, start_target, tell, url, where
from tests.unit.runtime.grpc_client import INFER, Client, iris_raw, iris_typed, slow_request, typed, typed_request
from tests.unit.runtime.http2 import call_raw
from tests.unit.runtime.process import DEADLINE, SETOSA, VIRGINICA, iris_request
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.shadowing import ask, pairs, shadow, start_pair, state
from tests.unit.runtime.targets import Target, answering, response
from tests.unit.runtime.test_grpc import echo_raw, echo_typed
from tests.unit.runtime.test_overload import wait_until


def row(*values: float, **more: Any) -> pb.ModelInferRequest:
    return typed_request(typed("x", "FP32", [len(values), 1], values), **more)


def test_copies_are_answered_compared_and_counted_apart_from_users_requests(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "iris", "iris")
    assert shadow(stable, to=url(canary), fraction=1).status == 200
    ask(stable, *[iris_raw(SETOSA, id="7")] * 3, iris_typed(SETOSA, VIRGINICA), iris_raw(SETOSA, outputs=["label"]))
    wait_until(lambda: pairs(stable) == {"agree": 5, "disagree": 0, "error": 0})
    assert requests_by_outcome(stable) == {**NONE, "ok": 5}
    assert requests_by_outcome(canary) == NONE
    assert sample(canary, "penstock_shadow_requests_total", outcome="ok") == 5
    assert "penstock_prediction_total{" not in canary.metrics_text()
    assert state(stable)["counts"] == {"seen": 5, "agree": 5, "disagree": 0, "error": 0, "dropped": 0}


def test_what_differs_is_counted_by_output_and_a_tolerance_allows_it(factors: Path, start_server: Start) -> None:
    stable, canary = start_pair(start_server, "twice", "nearly")
    shadow(stable, to=url(canary), fraction=1, tolerance={"relative": 1e-4})
    ask(stable, row(1.0, 5.0))
    wait_until(lambda: pairs(stable) == {"agree": 0, "disagree": 1, "error": 0})
    assert state(stable)["disagreements"] == {"y": 1}
    shadow(stable, to=url(canary), fraction=1, tolerances={"y": {"relative": 1e-2}})
    ask(stable, row(1.0, 5.0))
    wait_until(lambda: pairs(stable) == {"agree": 1, "disagree": 1, "error": 0})
    ask(stable, row(1.0, 5.0, outputs=["k"], model_version="1"))
    wait_until(lambda: pairs(stable)["agree"] == 2)


def test_tensors_of_every_datatype_are_copied(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "echo", "echo")
    shadow(stable, to=url(canary), fraction=1)
    ask(stable, echo_raw(), echo_typed())
    wait_until(lambda: sum(pairs(stable).values()) == 2)
    assert (pairs(stable)["agree"], state(stable)["error_reasons"]) == (2, {})


def test_calls_that_have_to_wait_for_the_model_are_copied_too(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "slow", "slow")
    shadow(stable, to=url(canary), fraction=1)
    ask(stable, slow_request(10))
    wait_until(lambda: pairs(stable) == {"agree": 1, "disagree": 0, "error": 0})


def test_large_calls_are_copied_too(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "iris", "iris")
    shadow(stable, to=url(canary), fraction=1)
    request = iris_raw(*[SETOSA] * (2 * shadower.INLINE_BYTES // 16))
    ask(stable, request)
    wait_until(lambda: pairs(stable) == {"agree": 1, "disagree": 0, "error": 0})


def test_the_fraction_is_of_both_protocols_together(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, answering(response(200, b'{"outputs":[]}')))
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=0.1)
    for _ in range(100):
        server.infer(iris_request(SETOSA))
    with Client(server.grpc_port) as client:
        for _ in range(100):
            client.infer(iris_raw(SETOSA))
            client.infer(iris_raw(SETOSA[:3]))
    wait_until(lambda: pairs(server)["disagree"] == 20)
    assert state(server)["counts"]["seen"] == 200, "what was refused has no answer to compare"


def test_copies_that_cannot_be_sent_are_dropped_and_users_do_not_wait(
    start_server: Start, targets: list[Target]
) -> None:
    target = start_target(targets, never)
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=1)
    ask(server, *[iris_raw(SETOSA)] * (shadower.CONCURRENT + shadower.MAX_WAITING + 30))
    wait_until(lambda: len(target.requests) == shadower.CONCURRENT)
    wait_until(lambda: sample(server, "penstock_shadow_dropped_total") == 30)
    assert state(server)["waiting"] == shadower.MAX_WAITING


def test_copies_that_wait_are_bounded_by_their_bytes(
    start_server: Start, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadower, "MAX_WAITING_BYTES", 1500)
    target = start_target(targets, never)
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=1)
    # 1,600 bytes in, 800 + 1,200 out.
    ask(server, iris_raw(*[SETOSA] * 100))
    wait_until(lambda: sample(server, "penstock_shadow_dropped_total") == 1)


def test_what_is_forwarded_is_not_copied(start_server: Start) -> None:
    stable, canary = start_pair(start_server, "iris", "iris")
    shadow(stable, to=url(canary), fraction=1)
    tell(stable, **where(canary), share=1)
    ask(stable, iris_raw(SETOSA))
    assert state(stable)["counts"]["seen"] == 0


@pytest.mark.parametrize("model", ["iris", "slow"])
def test_a_copy_over_grpc_is_answered_raw_and_counted_apart(start_server: Start, model: str) -> None:
    stable, canary = start_pair(start_server, model, model)
    shadow(stable, to=url(canary), fraction=1)
    tell(stable, **where(canary), share=1)
    request = iris_typed(SETOSA) if model == "iris" else slow_request(10)
    with Client(stable.grpc_port) as client:
        outcome = client.infer(request, DEADLINE, **{"penstock-shadow": "1"})
        assert client.infer(typed_request(), DEADLINE, **{"penstock-shadow": "1"}).answer is None
    assert outcome.metadata["penstock-revision"] == "stable", "it is not forwarded"
    assert len(outcome.answer.raw_output_contents) == len(outcome.answer.outputs)
    assert requests_by_outcome(stable) == NONE
    for name, count in (("ok", 1), ("client_error", 1)):
        assert sample(stable, "penstock_shadow_requests_total", outcome=name) == count
    for name in ("request_duration_seconds", "inference_duration_seconds", "queue_duration_seconds"):
        assert sample(stable, f"penstock_{name}_count") == 0
    assert "penstock_prediction_total{" not in stable.metrics_text()
    assert stable.get("/v2/models/m/stats").json["model_stats"][0]["inference_stats"]["success"]["count"] == 0
    assert state(stable)["counts"]["seen"] == 0, "nor copied again"


def test_metadata_becomes_headers_and_nothing_else(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, answering(response(200, b'{"outputs":[]}')))
    server = start_server("iris").ready()
    shadow(server, to=target.url, fraction=1)
    message = iris_raw(SETOSA).SerializeToString()
    call_raw(server.grpc_port, INFER, message, [
        (b"authorization", b"Bearer x"), (b"x-user", b"me"), (b"x-data-bin", b"AAA="), (b"x-evil", b"a\r\nx-more: b"),
        (b"connection", b"close"), (b"content-length", b"1"), (b"x-null", b"a\0b"), (b"x-high", b"\xc3\xa5"),
    ])  # fmt: skip
    wait_until(lambda: target.requests)
    head, _, body = target.requests[0].partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    assert start == b"POST /v2/models/m/infer HTTP/1.1"
    headers = dict(line.split(b": ", 1) for line in lines)
    assert set(headers) == {b"host", b"content-length", b"authorization", b"x-user", b"penstock-shadow",
                            b"inference-header-content-length"}  # fmt: skip
    length = int(headers[b"inference-header-content-length"])
    assert len(body) == length + 16
    assert [entry["name"] for entry in json.loads(body[:length])["outputs"]] == ["label", "probabilities"]


def test_only_legal_metadata_goes_on() -> None:
    legal: list[tuple[str, str | bytes]] = [("a-b_c.1", " x~"), ("x-bin", b"\r\n"), ("empty", "")]
    illegal = [
        ("A", "x"),
        ("a b", "x"),
        ("a\r\nb", "x"),
        ("", "x"),
        ("a", "x\r\n"),
        ("a", "\t"),
        ("a", "å"),
        ("a", "\0"),
    ]
    own: list[tuple[str, str | bytes]] = [("user-agent", "x"), ("grpc-timeout", "1S"), ("grpc-trace-bin", b"x")]
    assert passing([*legal, *illegal, *own]) == legal
