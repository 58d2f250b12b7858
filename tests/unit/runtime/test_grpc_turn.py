"""Calls that come at the same time are run together: nobody can tell it from being run alone."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from penstock_runtime.engine.batchable import Batching
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc.inference import Inference, Inferences
from penstock_runtime.server.repository import loading
from tests.unit.runtime.binary import from_bytes
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.grpc_client import Client, iris_raw, typed, typed_request
from tests.unit.runtime.process import DEADLINE, SETOSA, VIRGINICA, ServerThread
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.test_overload import wait_until


@pytest.fixture(autouse=True)
def gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every model gain by company, whatever would be measured."""
    monkeypatch.setattr(loading, "try_out", lambda *_: Batching(32, 1.0))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the rows of each run of several calls, as it is told."""
    seen: list[int] = []
    waiting = Inferences.waiting

    def noted(self: Inferences, serving: Any) -> int:
        found = waiting(self, serving)
        seen.append(found)
        return found

    monkeypatch.setattr(Inferences, "waiting", noted)
    return seen


class Held:
    """The server's thread, held at the next call that arrives until it is let go."""

    def __init__(self, server: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = threading.Event()
        self.arrived = threading.Event()
        listener = server._process._grpc
        assert listener is not None
        take = Inferences.take

        def hold(inferences: Inferences, call: Any) -> None:
            if not self.arrived.is_set():
                self.arrived.set()
                self.let_go.wait(DEADLINE)
            take(inferences, call)

        monkeypatch.setattr(Inferences, "take", hold)


def at_once(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch, requests: Sequence[pb.ModelInferRequest]
) -> list[Any]:
    """Return the calls, ended, of `requests` that have all come when the server begins to look at them."""
    with Client(server.grpc_port) as client:
        assert client.ask("ServerLive").answer.live
        held = Held(server, monkeypatch)
        calls = [client.start(request) for request in requests]
        try:
            assert held.arrived.wait(DEADLINE)
        finally:
            held.let_go.set()
        for call in calls:
            call.exception(DEADLINE)
        return calls


def label_of(call: Any) -> int:
    label: int = from_bytes("INT64", call.result().raw_output_contents[0])[0]
    return label


def test_each_gets_its_own_answer_and_is_counted_once(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, runs: list[int]
) -> None:
    server = start_server("iris").ready()
    rows = [SETOSA, VIRGINICA] * 30
    calls = at_once(server, monkeypatch, [iris_raw(row) for row in rows])
    assert [label_of(call) for call in calls] == [0, 2] * 30
    assert max(runs) > 1, "they did not wait for company"
    assert sample(server, "penstock_batch_size_count") < 60
    assert sample(server, "penstock_batch_size_sum") == 60
    assert requests_by_outcome(server)["ok"] == 60
    assert sample(server, "penstock_inference_duration_seconds_count") == 60
    ids = [dict(call.initial_metadata())["penstock-prediction-id"] for call in calls]
    given_back = [{"id": each, "label": label} for each, label in zip(ids, [0, 2] * 30, strict=True)]
    assert server.feedback(given_back).json["accepted"] == 60
    assert sample(server, "penstock_feedback_total", result="correct", cohort="none") == 60


def test_a_bad_one_gets_its_own_error(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_server("picky").ready()
    good, bad = (typed_request(typed("x", "FP32", [n], list(range(n)))) for n in (4, 3))
    calls = at_once(server, monkeypatch, [good, bad, good, bad, good])
    assert [call.code() for call in calls] == [
        grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.OK, grpc.StatusCode.INTERNAL,
        grpc.StatusCode.OK,
    ]  # fmt: skip
    assert requests_by_outcome(server) == {
        "ok": 3, "client_error": 0, "server_error": 2, "rejected": 0, "timeout": 0,
    }  # fmt: skip


def test_they_leave_no_trace_in_the_capacity(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"maxQueue":8,"threads":64}').ready()  # one run at a time
    calls = at_once(server, monkeypatch, [iris_raw(SETOSA)] * 6)
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}
    repository = server._process._repository
    serving = repository.models["m"].current
    assert serving is not None
    wait_until(lambda: not serving.calls)
    assert serving.executor.capacity == 9
    listener = server._process._grpc
    assert listener is not None
    wait_until(lambda: listener.in_flight == 0)


@pytest.mark.parametrize("share", ["0", "1e-9"])
def test_nothing_is_left_to_the_garbage_collector(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    server = start_server("iris", "--model-control", "explicit", "--access-log", share).ready()
    model = server._process._repository.models["m"]
    assert model.current is not None
    retired = weakref.ref(model.current)
    gc.collect()
    gc.disable()
    try:
        assert len(at_once(server, monkeypatch, [iris_raw(SETOSA)] * 20)) == 20
        wait_until(lambda: not any(isinstance(each, Inference) for each in gc.get_objects()))
        assert server.command("models/m/load", {}).status == 200
        wait_until(lambda: retired() is None)
    finally:
        gc.enable()


def test_who_goes_before_the_turns_end_is_not_answered(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_server("iris").ready()
    with Client(server.grpc_port) as client:
        assert client.ask("ServerLive").answer.live
        held = Held(server, monkeypatch)
        calls = [client.start(iris_raw(SETOSA)) for _ in range(6)]
        assert held.arrived.wait(DEADLINE)
        for call in calls[3:]:
            call.cancel()
        held.let_go.set()
        assert [label_of(call) for call in calls[:3]] == [0, 0, 0]
        # The next one works as ever, whatever became of those.
        assert client.infer(iris_raw(VIRGINICA)).code == grpc.StatusCode.OK
    listener = server._process._grpc
    assert listener is not None
    wait_until(lambda: listener.in_flight == 0)
    assert requests_by_outcome(server)["ok"] >= 4
    assert requests_by_outcome(server)["server_error"] == 0
