"""What passes between a server and its target, and targets that answer late, badly or not at all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit.runtime.conftest import Start
from tests.unit.runtime.forwarding import NONE, forwarded, never, start_target, tell, told, url
from tests.unit.runtime.process import SETOSA, call, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome
from tests.unit.runtime.targets import Target, answering, response


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/m/versions/1/infer"])
def test_the_target_gets_what_the_client_sent_but_for_what_is_between_two_neighbours(
    start_server: Start, targets: list[Target], path: str
) -> None:
    target = start_target(targets, answering(response(200, b"abc", "x-odd: yes", "connection: x-hop", "x-hop: 1")))
    server = start_server("iris").ready()
    tell(server, to=target.url, share=1)
    sent = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-user": "u",
        "content-type": "odd/type", "connection": "keep-alive, X-Private", "x-private": "1", "te": "trailers",
    }  # fmt: skip
    body = b"\x00whatever\xff"
    reply = call(server.http_port, "POST", path + "?a=b%20c", body, sent)
    assert (reply.status, reply.body) == (200, b"abc")
    assert reply.headers == {"x-odd": "yes", "content-length": "3"}
    head, _, got = target.requests[0].partition(b"\r\n\r\n")
    assert got == body
    line, *lines = head.decode().split("\r\n")
    assert line == "POST /v2/models/m/infer?a=b%20c HTTP/1.1", "a version numbers what lies in one revision"
    headers = [tuple(each.split(": ")) for each in lines]
    assert sorted(headers) == sorted({
        "host": f"127.0.0.1:{target.port}", "penstock-forwarded": "1", "content-length": str(len(body)),
        "traceparent": sent["traceparent"], "x-user": "u", "content-type": "odd/type", "accept-encoding": "identity",
    }.items())  # fmt: skip


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (CHUNKED, 200, b"abcde"),
        (CONTINUE + response(200, b"x"), 200, b"x"),
        (response(500, b"broken"), 500, b"broken"),
        (response(504, b""), 504, b""),
        (response(418, b"tea", "retry-after: 3"), 418, b"tea"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x"),
    ],
)
def test_whole_answers_pass_whatever_they_are(
    start_server: Start, targets: list[Target], answer: bytes, status: int, body: bytes
) -> None:
    target = start_target(targets, answering(answer))
    server = start_server("iris").ready()
    tell(server, to=target.url, share=1)
    for _ in range(2):
        reply = server.infer(iris_request(SETOSA))
        assert (reply.status, reply.body) == (status, body)
    assert requests_by_outcome(server) == NONE
    assert forwarded(server) == {"forwarded": 2, "fallback": 0, "timeout": 0}


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(429, b"{}"), "refused"),
        (response(503, b"{}"), "refused"),
        (response(502, b"{}"), "refused"),
        (b"", "dropped"),
        (b"HTTP/1.1 20", "dropped"),
        (HEAD + b"half", "dropped"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "dropped"),
        (b"SSH-2.0-OpenSSH_9\r\n", "garbled"),
        (b"\x15\x03\x01\x00\x02\x02\x50" * 10, "garbled"),
        (b"HTTP/1.1 200 OK\r\n\r\nwithout a length", "garbled"),
        (b"HTTP/1.1 101 Y\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "garbled"),
        (response(999, b""), "garbled"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", "garbled"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "garbled"),
        (b"HTTP/1.1 200 OK\r\nendless: " + b"x" * 100_000, "garbled"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "garbled"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000, "garbled"),
    ],
)
def test_what_is_no_whole_answer_is_answered_here(
    start_server: Start, targets: list[Target], answer: bytes, reason: str
) -> None:
    target = start_target(targets, answering(answer, close=True))
    server = start_server("iris", PENSTOCK_REVISION="stable").ready()
    tell(server, to=target.url, share=1)
    reply = server.infer(iris_request(SETOSA))
    assert (reply.status, reply.headers["penstock-revision"]) == (200, "stable")
    assert len(target.requests) == 1, "what may have killed a server is not sent to another"
    assert requests_by_outcome(server) == {**NONE, "ok": 1}
    assert forwarded(server) == {"forwarded": 0, "fallback": 1, "timeout": 0}
    assert told(server)["fallback_reasons"] == {reason: 1}


def test_an_answer_beyond_the_bound_is_not_held(
    start_server: Start, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_runtime.server.forward.peer.MIN_RESPONSE", 1000)
    target = start_target(targets, answering(response(200, b"x" * 100_000)))
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":1000}').ready()
    tell(server, to=target.url, share=1)
    assert server.infer(iris_request(SETOSA)).status == 200
    assert told(server)["fallback_reasons"] == {"garbled": 1}


def test_limits_of_this_server_hold_for_what_it_forwards(start_server: Start, targets: list[Target]) -> None:
    target = start_target(targets, answering(response(200, b"x")))
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":"1Ki"}').ready()
    tell(server, to=target.url, share=1)
    assert server.infer(b" " * 1025).status == 413
    assert not target.requests
    assert requests_by_outcome(server) == {**NONE, "client_error": 1}


def test_a_target_that_never_answers_costs_its_time_once(
    start_server: Start, targets: list[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_runtime.server.forward.relay.GRACE", 0.2)
    target = start_target(targets, never)
    server = start_server("iris", PENSTOCK_SERVING='{"timeout":"300ms"}').ready()
    tell(server, to=target.url, share=1)
    start = time.monotonic()
    reply = server.infer(iris_request(SETOSA))
    assert (reply.status, reply.json) == (504, {"error": "no answer within 0.3 s"})
    assert 0.4 < time.monotonic() - start < 5
    assert target.gone.wait(10), "the connection is closed, so that the target may stop"
    assert server.infer(iris_request(SETOSA)).status == 200
    assert forwarded(server) == {"forwarded": 0, "fallback": 1, "timeout": 1}
    assert requests_by_outcome(server) == {**NONE, "ok": 1}, "the canary's timeout is not stable's"


def test_a_target_that_lives_says_itself_that_the_time_is_up(start_server: Start) -> None:
    serving = '{"timeout":"300ms","threads":1}'
    stable = start_server("slow", PENSTOCK_SERVING=serving).ready()
    canary = start_server("slow", PENSTOCK_SERVING=serving).ready()
    tell(stable, to=url(canary), share=1)
    assert stable.infer({"inputs": [tensor("n", "INT64", [1], [2**40])]}).status == 504
    assert requests_by_outcome(canary) == {**NONE, "timeout": 1}
    assert forwarded(stable) == {"forwarded": 1, "fallback": 0, "timeout": 0}


def test_a_connection_that_the_target_closed_while_idle_costs_nothing(
    start_server: Start, targets: list[Target]
) -> None:
    def script(connection: Any, number: int) -> bool:
        if number == 1:
            connection.sendall(response(200, b"first"))
        # The second request on a connection finds it closing: nothing comes back.
        return number == 1

    target = start_target(targets, script)
    server = start_server("iris").ready()
    tell(server, to=target.url, share=1)
    for _ in range(5):
        assert server.infer(iris_request(SETOSA)).body == b"first"
    assert forwarded(server) == {"forwarded": 5, "fallback": 0, "timeout": 0}
    assert len(target.requests) == 9
