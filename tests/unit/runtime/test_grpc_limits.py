"""gRPC under strain: load, deadlines, clients that go or send nothing; and that every call is counted once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest
from grpc import StatusCode

from penstock_runtime.engine import executor
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc import listener, side
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.grpc_client import (
    INFER,
    Client,
    iris_raw,
    iris_typed,
    slow_request,
    typed,
    typed_request,
)
from tests.unit.runtime.process import DEADLINE, SETOSA, VIRGINICA, Server, ServerThread, iris_request, tensor
from tests.unit.runtime.scrape import families, requests_by_outcome, sample
from tests.unit.runtime.test_overload import FOREVER, wait_until

LONG = 2**40


def outcomes(server: Server) -> dict[str, float]:
    """Return the outcomes counted so far, without those that are 0."""
    return {outcome: count for outcome, count in requests_by_outcome(server).items() if count}


@pytest.fixture
def slow(start_server: Start) -> Iterator[tuple[ServerThread, Client]]:
    """A server of the slow model that runs one request and lets another wait."""
    limits = json.dumps({"threads": 64, "timeout": "20s", "maxQueue": 1})
    server = start_server("slow", PENSTOCK_SERVING=limits).ready()
    with Client(server.grpc_port) as client:
        yield server, client


class Silent:
    """A call whose message does not come until it is told that there is none."""

    def __init__(self, client: Client) -> None:
        self._end = threading.Event()
        self.call: Any = client.channel.stream_unary(INFER).future(self._messages(), timeout=DEADLINE)

    def _messages(self) -> Iterator[bytes]:
        self._end.wait(DEADLINE)
        yield from ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._end.set()

    @property
    def code(self) -> StatusCode:
        """How it ended, once it has."""
        code: StatusCode = self.call.exception(DEADLINE).code()
        return code


def fill(server: ServerThread, client: Client) -> list[Any]:
    """Start a call that runs for ever and one that waits behind it."""
    calls = [client.start(slow_request(LONG)) for _ in range(2)]
    wait_until(lambda: server.pending == 2)
    return calls


def test_calls_beyond_the_queue_are_refused_at_once(slow: tuple[ServerThread, Client]) -> None:
    server, client = slow
    under_way = fill(server, client)
    start = time.perf_counter()
    refused = client.infer(slow_request(0))
    assert time.perf_counter() - start < 2
    assert refused.code == StatusCode.RESOURCE_EXHAUSTED
    assert refused.details == "too many requests are waiting; try again later"
    assert server.infer(FOREVER).status == 429, "the queue is one for both protocols"
    assert client.check().code == StatusCode.OK
    assert outcomes(server) == {"rejected": 2}
    for call in under_way:
        call.cancel()
    wait_until(lambda: server.pending == 0)
    assert client.infer(slow_request(0)).code == StatusCode.OK
    assert outcomes(server) == {"rejected": 2, "client_error": 2, "ok": 1}


def test_a_call_too_many_is_refused_unread(slow: tuple[ServerThread, Client]) -> None:
    server, client = slow
    under_way = fill(server, client)
    with Silent(client) as silent:
        assert silent.code == StatusCode.RESOURCE_EXHAUSTED
    assert outcomes(server) == {"rejected": 1}
    for call in under_way:
        call.cancel()


def test_a_deadline_ends_the_run(slow: tuple[ServerThread, Client]) -> None:
    server, client = slow
    assert client.infer(slow_request(LONG), timeout=0.3).code == StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: server.pending == 0)
    assert outcomes(server) == {"timeout": 1}


def test_what_waits_beyond_its_deadline_is_not_run(slow: tuple[ServerThread, Client]) -> None:
    server, client = slow
    running = client.start(slow_request(LONG))
    wait_until(lambda: server.pending == 1)
    assert client.infer(slow_request(0), timeout=0.3).code == StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: server.pending == 1)
    running.cancel()
    wait_until(lambda: server.pending == 0)
    assert outcomes(server) == {"timeout": 1, "client_error": 1}
    assert sample(server, "penstock_batch_size_count") == 0


def test_the_servers_own_time_limit_holds(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"timeout":"300ms","threads":1}').ready()
    with Client(server.grpc_port) as client:
        outcome = client.infer(slow_request(LONG))
    assert (outcome.code, outcome.details) == (StatusCode.DEADLINE_EXCEEDED, "no answer within 0.3 s")
    assert outcome.metadata == {"penstock-revision": "none"}
    assert outcomes(server) == {"timeout": 1}


def test_a_client_that_goes_ends_its_run(slow: tuple[ServerThread, Client]) -> None:
    server, client = slow
    with Client(server.grpc_port) as leaving:
        call = leaving.start(slow_request(LONG))
        wait_until(lambda: server.pending == 1)
    assert call.done()
    wait_until(lambda: server.pending == 0)
    assert outcomes(server) == {"client_error": 1}
    assert client.infer(slow_request(0)).code == StatusCode.OK


def test_clients_that_send_nothing_hold_nobody_up_and_are_cut_off(
    start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server("iris").ready()
    with Client(server.grpc_port) as client:
        silent = [Silent(client) for _ in range(50)]
        assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK
        assert outcomes(server) == {"ok": 1}
        monkeypatch.setattr(listener, "BODY_SECONDS", 0.2)
        assert {each.code for each in silent} == {StatusCode.CANCELLED}
        assert outcomes(server) == {"ok": 1, "client_error": 50}
        for each in silent:
            each.end()


def test_a_call_without_a_message_is_refused(start_server: Start) -> None:
    server = start_server("iris").ready()
    with Client(server.grpc_port) as client:
        with Silent(client) as silent:
            pass
        assert silent.code == StatusCode.INVALID_ARGUMENT
        assert silent.call.details() == "the call has no message"
    assert outcomes(server) == {"client_error": 1}


def test_those_who_watch_are_bounded_and_leave_room_for_probes(
    start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side, "MAX_SIDE_CALLS", 2)
    with Client(start_server("iris").ready().grpc_port) as client:
        watches = [client.watch() for _ in range(2)]
        for watch in watches:
            next(watch)
        one_more = client.watch()
        assert one_more.code() == StatusCode.RESOURCE_EXHAUSTED
        assert client.check().code == StatusCode.OK
        watches[0].cancel()
        wait_until(lambda: client.watch(timeout=0.2).code() == StatusCode.DEADLINE_EXCEEDED)


def test_larger_requests_wait_together_and_run_together(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "INLINE_SECONDS", 0.0)
    server = start_server("patient", PENSTOCK_SERVING='{"threads":64,"timeout":"60s"}').ready()

    def request(number: int) -> pb.ModelInferRequest:
        return typed_request(typed("x", "FP32", [1, 1], [number]), typed("i", "INT64", [1], [number % 8]),
                             typed("n", "INT64", [1], [3000 if number == 0 else 1]))  # fmt: skip

    with Client(server.grpc_port) as client:
        first = client.start(request(0))
        wait_until(lambda: server.pending == 1)
        others = [client.start(request(number)) for number in range(1, 21)]
        wait_until(lambda: server.pending == 21)
        for number, call in enumerate([first, *others]):
            doubled, picked = call.result(DEADLINE).outputs
            assert list(doubled.contents.fp32_contents) == pytest.approx([2 * number], rel=1e-4)
            assert list(picked.contents.int64_contents) == [10 * (number % 8)]
    assert sample(server, "penstock_batch_size_count") == 2
    assert sample(server, "penstock_batch_size_sum") == 21
    assert sample(server, "penstock_request_duration_seconds_count") == 21


def test_both_protocols_count_the_same(start_server: Start) -> None:
    by_http, by_grpc = (start_server("iris").ready() for _ in range(2))
    for rows in ([SETOSA], [SETOSA, VIRGINICA]):
        assert by_http.infer(iris_request(*rows)).status == 200
    bodies: tuple[object, ...] = ({"inputs": []}, {"inputs": [tensor("X", "FP64", [1, 4], SETOSA)]})
    for body in bodies:
        assert by_http.infer(body).status == 400
    assert by_http.infer(iris_request(SETOSA), model="other").status == 404
    with Client(by_grpc.grpc_port) as client:
        for request in (iris_typed(SETOSA), iris_raw(SETOSA, VIRGINICA)):
            assert client.infer(request).code == StatusCode.OK
        for request in (typed_request(), typed_request(typed("X", "FP64", [1, 4], SETOSA))):
            assert client.infer(request).code == StatusCode.INVALID_ARGUMENT
        assert client.infer(iris_raw(SETOSA, model="other")).code == StatusCode.NOT_FOUND
        (stats,) = client.ask("ModelStatistics").answer.model_stats
    assert counted(by_http) == counted(by_grpc)
    assert outcomes(by_grpc) == {"ok": 2, "client_error": 2}
    assert (stats.inference_count, stats.execution_count) == (3, 2)
    assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (2, 2)
    assert stats.inference_stats.compute_input.ns > 0
    assert [(each.batch_size, each.compute_infer.count) for each in stats.batch_stats] == [(1, 1), (2, 1)]


def counted(server: Server) -> dict[tuple[str, ...], float]:
    """Return every sample but those of times."""
    return {
        (item.name, *item.labels.values()): item.value
        for family in families(server.metrics_text()).values()
        for item in family.samples
        if "seconds" not in item.name or item.name.endswith("_count")
    }


def test_counts_are_exact_under_concurrent_calls_of_both_protocols(start_server: Start) -> None:
    server = start_server("iris").ready()
    bad = typed_request()

    def over_grpc(_: int) -> list[str]:
        with Client(server.grpc_port) as client:
            calls = [client.infer(iris_raw(SETOSA)) for _ in range(150)]
            refused = [client.infer(bad) for _ in range(50)]
        assert {call.code for call in calls} == {StatusCode.OK}
        assert {call.code for call in refused} == {StatusCode.INVALID_ARGUMENT}
        return [call.metadata["penstock-prediction-id"] for call in calls]

    def over_http(_: int) -> list[str]:
        return [server.infer(iris_request(SETOSA)).headers["penstock-prediction-id"] for _ in range(50)]

    with ThreadPoolExecutor(12) as pool:
        runs = [*[pool.submit(over_grpc, n) for n in range(8)], *[pool.submit(over_http, n) for n in range(4)]]
        ids = [each for run in runs for each in run.result()]
    assert len(set(ids)) == len(ids) == 8 * 150 + 4 * 50
    assert outcomes(server) == {"ok": 1400, "client_error": 400}
    for name in ("request_duration_seconds", "inference_duration_seconds", "queue_duration_seconds"):
        assert sample(server, f"penstock_{name}_count") == 1400
    assert sample(server, "penstock_batch_size_sum") == 1400
    assert sample(server, "penstock_prediction_total", **{"class": "0"}) == 1400
