"""Requests that wait run together: seen from outside, in answers, metrics and logs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from penstock_runtime.engine import executor
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import ServerThread, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.test_overload import wait_until

FOREVER = 2**40
ONE_AT_A_TIME = {"threads": 64}


@pytest.fixture(autouse=True)
def nothing_runs_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "INLINE_SECONDS", 0.0)


def request(value: int, *, loops: int = 0, index: int = 0, name: str = "") -> dict[str, object]:
    """One row for the patient model; its output "double" is twice `value`."""
    return {
        "id": name or str(value),
        "inputs": [
            tensor("x", "FP32", [1, 2], [value, value]),
            tensor("i", "INT64", [1], [index]),
            tensor("n", "INT64", [1], [loops]),
        ],
    }


@contextmanager
def sent(server: ServerThread, body: object) -> Iterator[None]:
    """Keep a request under way; with the block's end the client goes."""
    payload = json.dumps(body).encode()
    before = server.pending
    with socket.create_connection(("127.0.0.1", server.http_port)) as raw:
        raw.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(payload))
        raw.sendall(payload)
        wait_until(lambda: server.pending == before + 1)
        yield


def patient(start_server: Start, **serving: object) -> ServerThread:
    return start_server("patient", PENSTOCK_SERVING=json.dumps({**ONE_AT_A_TIME, **serving})).ready()


@pytest.mark.parametrize(("size", "runs"), [(None, 1), (3, 2), (1, 5)])
def test_requests_that_wait_share_runs_and_each_gets_its_own_answer(
    start_server: Start, size: int | None, runs: int
) -> None:
    server = patient(start_server, batching={} if size is None else {"maxSize": size})
    with ThreadPoolExecutor(5) as pool:
        with sent(server, request(0, loops=FOREVER)):
            replies = [pool.submit(server.infer, request(value)) for value in range(5)]
            wait_until(lambda: server.pending == 6)
        for value, reply in enumerate(replies):
            found = reply.result().json
            assert (found["id"], found["outputs"][0]["data"]) == (str(value), [2 * value] * 2)
    assert sample(server, "penstock_batch_size_count") == runs
    assert sample(server, "penstock_batch_size_sum") == 5
    for name in ("inference", "queue", "request"):
        assert sample(server, f"penstock_{name}_duration_seconds_count") == 5
    assert requests_by_outcome(server)["ok"] == 5


def test_a_bad_request_among_good_ones_gets_its_own_error(start_server: Start) -> None:
    server = patient(start_server)
    with ThreadPoolExecutor(3) as pool:
        with sent(server, request(0, loops=FOREVER)):
            replies = [pool.submit(server.infer, request(value, index=index)) for value, index in ((1, 1), (2, 99))]
            wait_until(lambda: server.pending == 3)
        good, bad = (reply.result() for reply in replies)
    assert (good.status, good.json["outputs"][1]["data"]) == (200, [10])
    assert bad.status == 400
    assert bad.json["error"].startswith("the model refused the input: ")


def test_a_client_that_goes_frees_its_place_and_the_model(start_server: Start) -> None:
    server = patient(start_server)
    with sent(server, request(0, loops=FOREVER)):
        with sent(server, request(1)):
            assert server.pending == 2
        wait_until(lambda: server.pending == 1)
    wait_until(lambda: server.pending == 0)
    assert server.infer(request(2)).status == 200
    assert requests_by_outcome(server) == {
        "ok": 1, "client_error": 2, "server_error": 0, "rejected": 0, "timeout": 0,
    }  # fmt: skip
    assert sample(server, "penstock_batch_size_count") == 1


def test_a_full_line_is_refused_while_several_run_together(start_server: Start) -> None:
    server = patient(start_server, maxQueue=2)
    with ThreadPoolExecutor(4) as pool:
        with sent(server, request(0, loops=FOREVER)), sent(server, request(1, loops=FOREVER)):
            first = pool.submit(server.infer, request(2))
            wait_until(lambda: server.pending == 3)
            assert server.infer(request(9)).status == 429
        assert first.result().status == 200
    assert requests_by_outcome(server)["rejected"] == 1


@pytest.mark.parametrize(("model", "size", "rows"), [("iris", 32, 32), ("iris", 7, 7), ("iris", 1, 1), ("slow", 1, 1)])
def test_a_fit_model_or_a_bound_of_one_says_nothing(start_server: Start, model: str, size: int, rows: int) -> None:
    server = start_server(model, PENSTOCK_SERVING=json.dumps({"batching": {"maxSize": size}})).ready()
    assert server.loaded["max_batch_rows"] == rows
    assert "requests are not run together" not in [line["msg"] for line in server.log]


def test_a_model_that_is_not_fit_says_why(start_server: Start) -> None:
    server = start_server("slow").start()
    line = server.wait_log("requests are not run together")
    assert line["reason"] == "the model does not tell the shape of output 'mean'"
    assert server.wait_log("loaded")["max_batch_rows"] == 1
