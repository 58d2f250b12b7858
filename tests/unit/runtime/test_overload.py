"""Limits: body, queue and time; each refused as the protocol wants, and counted under its own outcome."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path

import pytest

from penstock_runtime.server import connection, http
from penstock_runtime.server.app import DataApp
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.sockets import bind
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.forwarding import NONE
from tests.unit.runtime.process import (
    SETOSA,
    Reply,
    Server,
    call,
    iris_request,
    tensor,
    unloaded_repository,
)
from tests.unit.runtime.scrape import requests_by_outcome, sample

PATH = "/v2/models/m/infer"


def slow_request(loops: int) -> dict[str, object]:
    return {"inputs": [tensor("n", "INT64", [1], [loops])]}


FOREVER = slow_request(2**40)


def wait_until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def test_a_body_beyond_the_limit_is_refused_by_its_length_and_by_its_bytes(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":"1Ki"}').ready()
    by_length = call(server.http_port, "POST", PATH, b" " * 1025)
    assert (by_length.status, by_length.json) == (413, {"error": "the body is larger than 1024 bytes"})
    with socket.create_connection(("127.0.0.1", server.http_port)) as raw:
        raw.settimeout(10)
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        raw.sendall(head + b"401\r\n" + b" " * 1025 + b"\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert requests_by_outcome(server)["client_error"] == 2


def test_a_large_declared_body_is_refused_before_it_is_sent(iris: Server) -> None:
    with socket.create_connection(("127.0.0.1", iris.http_port)) as raw:
        raw.settimeout(10)
        raw.sendall(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {2**40}\r\n\r\n".encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_time_is_up_with_504_and_the_model_is_free_again(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"timeout":"300ms","threads":1}').ready()
    assert sample(server, "penstock_inference_duration_seconds_count") == 0
    reply = server.infer(FOREVER)
    assert (reply.status, reply.json) == (504, {"error": "no answer within 0.3 s"})
    wait_until(lambda: server.infer(slow_request(1)).status == 200)
    outcomes = requests_by_outcome(server)
    assert (outcomes["timeout"], outcomes["ok"]) == (1, 1)
    assert sample(server, "penstock_request_duration_seconds_count") == 1


def test_a_full_queue_is_refused_with_429_and_when_to_come_back(start_server: Start) -> None:
    serving = json.dumps({"maxQueue": 1, "threads": 64, "timeout": "3s"})  # 64 threads: one run at a time
    server = start_server("slow", PENSTOCK_SERVING=serving).ready()
    with ThreadPoolExecutor(3) as pool:
        replies = sorted(pool.map(server.infer, [FOREVER] * 3), key=lambda reply: reply.status)
    assert [reply.status for reply in replies] == [429, 504, 504]
    assert replies[0].headers["retry-after"] == "1"
    assert list(replies[0].json) == ["error"]
    assert server.get("/v2/health/ready").status == 200
    assert requests_by_outcome(server) == {
        "ok": 0, "client_error": 0, "server_error": 0, "rejected": 1, "timeout": 2,
    }  # fmt: skip


async def test_before_the_model_is_loaded_requests_get_503(models: Path) -> None:
    repository = unloaded_repository(models / "iris")
    listener = Listener(DataApp(repository, 1024), bind("127.0.0.1", 0))
    await listener.start()

    async def ask(method: str, path: str, body: object = None) -> Reply:
        return await asyncio.to_thread(call, listener.port, method, path, body)

    assert (await ask("GET", "/v2/health/live")).status == 200
    paths = ("/v2/health/ready", "/v2/models/m", "/v2/models/m/ready", "/v2/models/m/config", "/v2/models/m/stats")
    for path in paths:
        reply = await ask("GET", path)
        assert (reply.status, reply.json["error"]) == (503, "the model is not loaded yet")
    reply = await ask("POST", PATH, iris_request(SETOSA))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert await listener.stop(asyncio.get_running_loop().time() + 5)
    assert repository.models["m"].metrics.requests == {
        "ok": 0, "client_error": 0, "server_error": 0, "rejected": 1, "timeout": 0,
    }  # fmt: skip


def test_a_client_that_leaves_mid_body_is_a_client_error(start_server: Start) -> None:
    server = start_server("iris").ready()
    with socket.create_connection(("127.0.0.1", server.http_port)) as raw:
        raw.sendall(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode())
    wait_until(lambda: requests_by_outcome(server)["client_error"] == 1)


def test_a_body_that_does_not_arrive_is_given_up(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.2)
    server = start_server("iris").ready()
    with socket.create_connection(("127.0.0.1", server.http_port)) as raw:
        raw.settimeout(20)
        raw.sendall(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode())
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"error":"the body did not arrive within 0.2 s"}')
    assert requests_by_outcome(server)["client_error"] == 1


def test_bodies_that_are_coming_take_bounded_memory(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_ARRIVING", 100_000)
    server = start_server("iris").ready()
    body = json.dumps(iris_request(SETOSA)).encode().ljust(80_000)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    def answer(raw: socket.socket, rest: bytes) -> int:
        raw.sendall(rest)
        response = HTTPResponse(raw)
        response.begin()
        response.read()
        return response.status

    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), 20)) for _ in range(3)]
        for client in clients:
            client.sendall(head + body[:60_000])
            # When this is answered, what was sent before it has been read.
            assert server.get("/v2/health/live").status == 200
        assert [answer(client, body[60_000:]) for client in clients] == [200, 429, 429]
        assert requests_by_outcome(server) == {**NONE, "ok": 1, "rejected": 2}
        clients.pop().sendall(head + body[:60_000])
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.http_port), 20) as client:
            assert answer(client, head + body) == 200, "what others left takes no room"


@pytest.mark.parametrize("connections", [50])
def test_concurrent_requests_get_their_own_answers(iris: Server, connections: int) -> None:
    barrier = threading.Barrier(connections)

    def ask(number: int) -> bool:
        barrier.wait()
        return bool(iris.infer(iris_request(SETOSA, id=str(number))).json["id"] == str(number))

    with ThreadPoolExecutor(connections) as pool:
        assert all(pool.map(ask, range(connections)))
