"""The short way of requests that come whole: nobody can tell it from the long one, but by the time it takes."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

import httptools
import pytest

from penstock_runtime.server.connection import MOST_BYTES, Connection
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import DEADLINE, SETOSA, VIRGINICA, ServerThread, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.test_overload import slow_request, wait_until

PATH = "/v2/models/m/infer"
BODY = json.dumps(iris_request(SETOSA)).encode()


class Seen(NamedTuple):
    """What came back: answers, and whether the server closed the connection after them."""

    answers: list[tuple[int, dict[str, str], bytes]]
    closed: bool


class _Reader:
    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.parser: Any = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode() not in self._headers, f"{name!r} twice"
        self._headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.answers.append((self.parser.get_status_code(), self._headers, self._body))


def exchange(server: ServerThread, *packets: bytes, answers: int = 1) -> Seen:
    """Send `packets` one after the other, each once the server has read those before; read `answers` answers."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for packet in packets:
            connection.sendall(packet)
            wait_until(lambda: unread(server) == 0)
        return read_answers(connection, answers)


def read_answers(connection: socket.socket, answers: int) -> Seen:
    """Read `answers` answers."""
    reader = _Reader()
    closed = False
    while len(reader.answers) < answers:
        data = connection.recv(2**20)
        assert data, f"{len(reader.answers)} of {answers} answers"
        reader.parser.feed_data(data)
    if reader.answers[-1][1].get("connection") == "close":
        closed = connection.recv(1) == b""
    return Seen(reader.answers, closed)


def unread(server: ServerThread) -> int:
    """Return the bytes that wait in the receive queues of the server's connections."""
    port = f":{server.http_port:04X}"
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table]
    return sum(int(row[4].partition(":")[2], 16) for row in rows if row[1].endswith(port) and row[3] == "01")


def post(body: bytes, *headers: str, path: str = PATH, version: str = "1.1", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/{version}", "Host: h", f"Content-Length: {size}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def binary(body: dict[str, object], blob: bytes) -> bytes:
    head = json.dumps(body).encode()
    return post(head + blob, f"Inference-Header-Content-Length: {len(head)}")


BINARY_INPUT = {
    "inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
    "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
}
GET = b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n"
MANY = json.dumps(iris_request(*[SETOSA] * 300)).encode()
CHUNKED = b"POST %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    PATH.encode(), len(BODY), BODY,
)  # fmt: skip

CASES: dict[str, tuple[tuple[bytes, ...], int]] = {
    "json": ((post(BODY),), 1),
    "with an id": ((post(json.dumps(iris_request(SETOSA, id="7")).encode()),), 1),
    "binary": ((binary(BINARY_INPUT, bytes(16)),), 1),
    "binary, unaligned": ((binary({**BINARY_INPUT, "id": "odd"}, bytes(16)),), 1),
    "raw": ((post(bytes(16), "Inference-Header-Content-Length: 0"),), 1),
    "several on one connection": ((post(BODY), post(b"{"), post(BODY)), 3),
    "several in one packet": ((post(BODY) + post(b"{") + post(BODY),), 3),
    "short and long ones in turn": ((post(BODY) + GET + post(BODY) * 2 + CHUNKED + post(BODY),), 6),
    "in two packets": ((post(BODY)[:100], post(BODY)[100:]), 1),
    "headers first": ((post(BODY)[: -len(BODY)], BODY), 1),
    "chunked": ((CHUNKED,), 1),
    "asks to go on": ((post(BODY, "Expect: 100-continue"),), 1),
    "closing": ((post(BODY, "Connection: close"),), 1),
    "old": ((post(BODY, version="1.0"),), 1),
    "large answer, compressed": ((post(MANY, "Accept-Encoding: gzip"),), 1),
    "small answer, not compressed": ((post(BODY, "Accept-Encoding: gzip"),), 1),
    "not JSON": ((post(b"nonsense"),), 1),
    "unknown input": ((post(json.dumps({"inputs": [tensor("y", "FP32", [1], [1])]}).encode()),), 1),
    "header length of no number": ((post(BODY, "Inference-Header-Content-Length: x"),), 1),
    "header length beyond the end": ((post(BODY, "Inference-Header-Content-Length: 9999"),), 1),
    "unknown coding": ((post(BODY, "Content-Encoding: br"),), 1),
    "too large": ((post(bytes(20_000)),), 1),
    "too large by its word": ((post(b"", length=20_000),), 1),
    "version": ((post(BODY, path="/v2/models/m/versions/1/infer"),), 1),
    "no such version": ((post(BODY, path="/v2/models/m/versions/2/infer"),), 1),
    "escaped": ((post(BODY, path="/v2/models/%6d/infer"),), 1),
    "query": ((post(BODY, path=f"{PATH}?a=b"),), 1),
    "other model": ((post(BODY, path="/v2/models/%ff/infer"),), 1),
    "GET": ((f"GET {PATH} HTTP/1.1\r\nHost: h\r\n\r\n".encode(),), 1),
}  # fmt: skip


@pytest.fixture
def both(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> tuple[ServerThread, ServerThread]:
    """A server with the short way, and one without."""
    limit = {"PENSTOCK_SERVING": json.dumps({"maxBodyBytes": len(MANY)})}
    short = start_server("iris", **limit).ready()
    long = start_server("iris", **limit).ready()
    monkeypatch.setattr(long._process._listeners[0], "_direct", None)
    return short, long


def told(seen: Seen) -> list[tuple[object, ...]]:
    """Return what must be the same either way: all but the ids."""
    return [
        (status, sorted(set(headers) - {"penstock-prediction-id"}), headers.get("connection"), body)
        for status, headers, body in seen.answers
    ] + [(seen.closed,)]


@pytest.mark.parametrize("name", CASES)
def test_both_ways_answer_and_count_alike(both: tuple[ServerThread, ServerThread], name: str) -> None:
    packets, answers = CASES[name]
    one, other = (exchange(server, *packets, answers=answers) for server in both)
    assert told(one) == told(other)
    for server in both:
        wait_until(lambda server=server: server._process._repository.in_flight == 0)
    assert requests_by_outcome(both[0]) == requests_by_outcome(both[1])
    counts = [stages(server) for server in both]
    assert counts[0] == counts[1]


def stages(server: ServerThread) -> dict[str, int]:
    found = server.get("/v2/models/m/stats").json["model_stats"][0]["inference_stats"]
    return {stage: item["count"] for stage, item in found.items()}


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each request took."""
    taken: list[str] = []
    begin = Connection._begin_cycle

    def note(connection: Connection) -> None:
        taken.append("long")
        begin(connection)

    monkeypatch.setattr(Connection, "_begin_cycle", note)
    return taken


@pytest.mark.parametrize(
    ("name", "long"),
    [("json", 0), ("binary", 0), ("several in one packet", 0), ("large answer, compressed", 0), ("closing", 0),
     ("in two packets", 0), ("chunked", 1), ("version", 1), ("old", 1), ("GET", 1)],
)  # fmt: skip
def test_whole_requests_take_the_short_way(start_server: Start, ways: list[str], name: str, long: int) -> None:
    server = start_server("iris").ready()
    packets, answers = CASES[name]
    exchange(server, *packets, answers=answers)
    assert len(ways) == long


def test_what_waits_for_the_model_is_answered_and_others_meanwhile(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"threads":1}').ready()
    body = json.dumps(slow_request(200)).encode()
    seen = exchange(server, post(body) + b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n" + post(body), answers=3)
    assert [status for status, _, _ in seen.answers] == [200, 200, 200]
    assert "mean" in seen.answers[0][2].decode()
    assert seen.answers[1][2] == b'{"live":true}', "answers come in the order of their requests"
    assert sample(server, "penstock_requests_total", outcome="ok") == 2


def test_a_client_that_leaves_frees_the_model(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"threads":1}').ready()
    connection = socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE)
    connection.sendall(post(json.dumps(slow_request(2**40)).encode()))
    wait_until(lambda: server.pending == 1)
    connection.close()
    wait_until(lambda: server.pending == 0)
    assert requests_by_outcome(server)["client_error"] == 1
    assert server._process._repository.in_flight == 0


def test_answers_are_the_models_own(start_server: Start) -> None:
    server = start_server("iris").ready()
    bodies = [json.dumps(iris_request(row)).encode() for row in (SETOSA, VIRGINICA)]
    seen = exchange(server, b"".join(post(body) for body in bodies * 20), answers=40)
    labels = [json.loads(body)["outputs"][0]["data"][0] for _, _, body in seen.answers]
    assert labels == [0, 2] * 20
    ids = [headers["penstock-prediction-id"] for _, headers, _ in seen.answers]
    assert len(set(ids)) == 40
    reply = server.feedback([{"id": each, "label": label} for each, label in zip(ids, labels, strict=True)])
    assert reply.json["accepted"] == 40


# More than is read at once, and less than what goes by ASGI.
PADDED = BODY + b" " * 300_000


def test_a_large_body_in_pieces_takes_the_short_way(start_server: Start, ways: list[str]) -> None:
    server = start_server("iris").ready()
    request = post(PADDED)
    pieces = [request[at : at + 50_000] for at in range(0, len(request), 50_000)]
    seen = exchange(server, *pieces)
    assert [status for status, _, _ in seen.answers] == [200]
    assert ways == []
    assert exchange(server, post(BODY + b" " * MOST_BYTES)).answers[0][0] == 200
    assert len(ways) == 1, "a larger one goes by ASGI"


def test_a_body_for_which_there_is_no_room_is_read_and_refused(start_server: Start) -> None:
    serving = json.dumps({"maxQueue": 0, "threads": 64, "timeout": "60s"})  # 64 threads: one run at a time
    server = start_server("slow", PENSTOCK_SERVING=serving).ready()
    large = post(json.dumps(slow_request(1)).encode() + b" " * 300_000)
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as busy:
        busy.sendall(post(json.dumps(slow_request(2**40)).encode()))
        wait_until(lambda: server.pending == 1)
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as other:
            other.sendall(large[:100_000])
            wait_until(lambda: unread(server) == 0)
            assert server._process._repository.in_flight == 1, "it is not answered before it was sent"
            other.sendall(large[100_000:])
            assert read_answers(other, 1).answers[0][0] == 429
            busy.close()
            wait_until(lambda: server.pending == 0)
            other.sendall(large)
            assert read_answers(other, 1).answers[0][0] == 200, "the connection stays"
    wait_until(lambda: server._process._repository.in_flight == 0)
    assert requests_by_outcome(server) == {
        "ok": 1, "client_error": 1, "server_error": 0, "rejected": 1, "timeout": 0,
    }  # fmt: skip


def test_a_body_that_is_too_large_to_be_kept_is_refused_or_whole(start_server: Start) -> None:
    serving = json.dumps({"maxQueue": 0, "threads": 64, "timeout": "60s"})
    server = start_server("slow", PENSTOCK_SERVING=serving).ready()
    large = post(json.dumps(slow_request(1)).encode() + b" " * 2 * MOST_BYTES)
    with (
        socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as busy,
        socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as other,
    ):
        busy.sendall(post(json.dumps(slow_request(2**40)).encode()))
        wait_until(lambda: server.pending == 1)
        other.sendall(large[:100_000])
        assert read_answers(other, 1).answers[0][0] == 429
        busy.close()
        wait_until(lambda: server.pending == 0)
    assert exchange(server, large).answers[0][0] == 200


def test_a_shutdown_waits_for_bodies_and_runs_only_so_long(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"threads":1}').ready()
    with (
        socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as reading,
        socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as running,
    ):
        reading.sendall(post(PADDED)[:1000])
        running.sendall(post(json.dumps(slow_request(2**40)).encode()))
        wait_until(lambda: server.pending == 1 and unread(server) == 0)
        listener = server._process._listeners[0]
        stopped = asyncio.run_coroutine_threadsafe(listener.stop(server._loop.time() + 0.2), server._loop)
        for connection in (reading, running):
            status, headers, body = read_answers(connection, 1).answers[0]
            assert (status, headers["connection"]) == (503, "close")
            assert json.loads(body) == {"error": "the server is shutting down"}
        assert not stopped.result(DEADLINE), "not all was finished"
    wait_until(lambda: server.pending == 0)
    assert requests_by_outcome(server)["rejected"] == 2


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(start_server: Start) -> None:
    server = start_server("iris").ready()
    server._process._listeners[0]._config.timeout_keep_alive = 1
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE) as connection:
        start = time.monotonic()
        while time.monotonic() - start < 2.0:
            connection.sendall(post(BODY))
            assert read_answers(connection, 1).answers[0][0] == 200
        last = time.monotonic()
        assert connection.recv(1) == b"", "closed by the server"
        assert time.monotonic() - last > 0.9
