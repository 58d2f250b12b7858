"""Requests of one turn, which are answered together: nobody can tell it from being answered alone."""

from __future__ import annotations

import gc
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_runtime.engine.batchable import Batching
from penstock_runtime.protocol.encode import encode_response
from penstock_runtime.protocol.encode_rows import encode_rows, with_id
from penstock_runtime.server.call import Call
from penstock_runtime.server.repository import loading
from penstock_runtime.server.serving import Serving
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import DEADLINE, SETOSA, VIRGINICA, Server, ServerThread, iris_request
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.test_direct import BINARY_INPUT, Seen, binary, post, read_answers, unread
from tests.unit.runtime.test_overload import wait_until


def serving_of(server: ServerThread) -> Serving:
    serving = server._process._repository.models["m"].current
    assert serving is not None
    return serving


@contextmanager
def one_turn(server: ServerThread) -> Iterator[None]:
    """Hold the server's event loop until the body is over: what is sent in it is read in one turn then."""
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        let_go.wait(DEADLINE)

    server._loop.call_soon_threadsafe(hold)
    assert held.wait(DEADLINE)
    try:
        yield
    finally:
        let_go.set()


def at_once(server: ServerThread, requests: Sequence[bytes]) -> list[Seen]:
    """Return the answers to `requests`, each by a connection of its own and all in one turn."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE))
            for _ in requests
        ]
        # So that the server has accepted them all.
        for each in sockets:
            each.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
            read_answers(each, 1)
        with one_turn(server):
            for each, request in zip(sockets, requests, strict=True):
                each.sendall(request)
            wait_until(lambda: unread(server) == sum(map(len, requests)))
        return [read_answers(each, 1) for each in sockets]


def alone(server: ServerThread, requests: Sequence[bytes]) -> list[Seen]:
    """Return the answers to `requests`, one after the other."""
    return [at_once(server, [request])[0] for request in requests]


def told(seen: Seen) -> tuple[object, ...]:
    """Return what must be the same either way: all but the id."""
    ((status, headers, body),) = seen.answers
    return status, sorted(set(headers)), {**headers, "penstock-prediction-id": ""}, body, seen.closed


def body(*rows: list[float], **more: object) -> bytes:
    return post(json.dumps(iris_request(*rows, **more)).encode())


REQUESTS = (
    [body(row, **more) for row in (SETOSA, VIRGINICA, [6.0, 3.0, 4.5, 1.5]) for more in ({}, {"id": 'odd "%s" %'})]
    + [body(SETOSA, VIRGINICA)]
    + [body(SETOSA, outputs=[{"name": name}]) for name in ("probabilities", "label")]
    + [body(VIRGINICA, parameters={"binary_data_output": True}), binary(BINARY_INPUT, bytes(16))]
    + [post(json.dumps(iris_request(VIRGINICA)).encode(), "Accept-Encoding: gzip", "Connection: close")]
    + [post(b"nonsense"), body([1.0]), body(VIRGINICA)]
)  # fmt: skip


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects how many rows are answered together, each time."""
    seen: list[int] = []
    encode = Serving.encode_rows

    def noted(self: Serving, *args: Any) -> Any:
        seen.append(args[2].rows)
        return encode(self, *args)

    monkeypatch.setattr(Serving, "encode_rows", noted)
    return seen


@pytest.mark.parametrize("model", ["iris", "text"])
def test_answers_are_those_that_each_gets_alone(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, ways: list[int], model: str
) -> None:
    monkeypatch.setattr(loading, "try_out", lambda *_: Batching(32, 1.0))  # whatever was measured
    server = start_server(model).ready()
    serving_of(server).executor._strikes = -(10**9)  # a busy machine sends none to the pool
    expected = [told(seen) for seen in alone(server, REQUESTS)]
    assert ways == [], "a request by itself is answered at once"
    assert [status for status, *_ in expected].count(200) > 6
    together = at_once(server, REQUESTS)
    assert [told(seen) for seen in together] == expected
    assert sum(ways) > 3, "they were not answered together"


def test_each_is_counted_once_and_its_id_is_worth_a_label(start_server: Start) -> None:
    server = start_server("iris").ready()
    rows = [SETOSA, VIRGINICA] * 20
    seen = at_once(server, [body(row) for row in rows])
    answers = [answer for each in seen for answer in each.answers]
    labels = [json.loads(body)["outputs"][0]["data"][0] for _, _, body in answers]
    assert labels == [0, 2] * 20
    ids = [headers["penstock-prediction-id"] for _, headers, _ in answers]
    assert len(set(ids)) == 40
    given_back = [{"id": each, "label": label} for each, label in zip(ids, labels, strict=True)]
    assert server.feedback(given_back).json["accepted"] == 40
    assert sample(server, "penstock_feedback_total", result="correct", cohort="none") == 40
    assert_counted(server, 40)


def assert_counted(server: Server, requests: int) -> None:
    assert requests_by_outcome(server)["ok"] == requests
    for stage in ("request", "inference", "queue"):
        assert sample(server, f"penstock_{stage}_duration_seconds_count") == requests, stage
    assert sample(server, "penstock_prediction_total", **{"class": "0"}) == requests / 2
    stats = server.get("/v2/models/m/stats").json["model_stats"][0]
    assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == (requests, requests)
    runs = sum(batch["compute_infer"]["count"] for batch in stats["batch_stats"])
    assert stats["execution_count"] == runs == sample(server, "penstock_batch_size_count")
    assert sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in stats["batch_stats"]) == requests
    assert stats["inference_stats"]["compute_input"]["count"] == requests
    assert stats["inference_stats"]["compute_input"]["ns"] > 0


def test_who_breaks_off_before_the_turns_end_disturbs_nobody(start_server: Start) -> None:
    server = start_server("iris").ready()
    capacity = serving_of(server).executor.capacity
    leaving = socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE)
    leaving.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
    read_answers(leaving, 1)
    with one_turn(server):
        leaving.sendall(body(SETOSA))
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.close()
    seen = at_once(server, [body(VIRGINICA)] * 5)
    assert {each.answers[0][0] for each in seen} == {200}
    repository = server._process._repository
    wait_until(lambda: repository.in_flight == 0)
    assert serving_of(server).in_flight == 0
    assert serving_of(server).executor.capacity == capacity


def test_nothing_is_left_to_the_garbage_collector(start_server: Start) -> None:
    server = start_server("iris").ready()
    gc.collect()
    gc.disable()
    try:
        at_once(server, [body(SETOSA), body([1.0]), post(b"{")] * 5)
        wait_until(lambda: not any(type(each) is Call for each in gc.get_objects()))
    finally:
        gc.enable()


def test_larger_models_answer_those_that_shared_a_run_together(start_server: Start, ways: list[int]) -> None:
    server = start_server("iris").ready()
    executor = serving_of(server).executor
    executor.inline_elements = 0  # as if it were a large one: its threads run it
    requests = [body(row) for row in (SETOSA, VIRGINICA) * 10]
    expected = [told(seen) for seen in alone(server, requests)]
    while not ways:  # who finds the thread free runs alone, so it takes some that come at once
        assert [told(seen) for seen in at_once(server, requests)] == expected
    assert server.pending == 0


DATATYPES = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "UINT8": np.uint8, "BOOL": np.bool_}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def outputs(draw: st.DrawFn) -> list[tuple[str, str, np.ndarray[Any, Any]]]:
    rows = draw(st.integers(1, 5))
    made = []
    for name in draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True)):
        shape = (rows, *draw(st.lists(st.integers(0, 3), max_size=3)))
        datatype = draw(st.sampled_from([*DATATYPES, "BYTES"]))
        size = int(np.prod(shape))
        array: np.ndarray[Any, Any]
        if datatype == "BYTES":
            values = draw(st.lists(TEXTS, min_size=size, max_size=size))
            array = np.array(values, np.object_).reshape(shape)
        else:
            dtype = np.dtype(DATATYPES[datatype])
            raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
            # NaN and the infinities come as well.
            array = np.frombuffer(raw, dtype).reshape(shape)
            if datatype == "BOOL":
                array = np.frombuffer(raw, np.uint8).reshape(shape) > 127
        made.append((name, datatype, array))
    return made


@settings(max_examples=200, deadline=None)
@given(outputs(), TEXTS, st.one_of(st.none(), TEXTS))
def test_rows_are_written_as_each_would_be(
    made: list[tuple[str, str, np.ndarray[Any, Any]]], model: str, request_id: str | None
) -> None:
    texts = encode_rows(model, "1", made)
    for row in range(len(made[0][2])):
        own = [(name, datatype, array[row : row + 1]) for name, datatype, array in made]
        assert with_id(texts, row, request_id) == encode_response(model, "1", request_id, own)[0]
