"""A client that closes its sending side after its request is answered; one that has gone leaves nothing behind."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path

import pytest

from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import DEADLINE, SETOSA, ServerThread, iris_request
from tests.unit.runtime.scrape import requests_by_outcome
from tests.unit.runtime.secret_files import SecretMount, make_pair, trusting
from tests.unit.runtime.test_overload import FOREVER, slow_request, wait_until
from tests.unit.runtime.test_tls import tls

BRIEF = json.dumps(slow_request(1)).encode()
ENDLESS = json.dumps(FOREVER).encode()


def post(body: bytes, version: str = "1.1", more: bytes = b"") -> bytes:
    head = f"POST /v2/models/m/infer HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n".encode()
    return head + more + b"\r\n" + body


def connected(server: ServerThread) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def nobody_is_left(server: ServerThread) -> bool:
    return not server._process._listeners[0]._state.connections


# By the short way, and by ASGI.
WAYS = [b"", b"penstock-shadow: 1\r\n"]


@pytest.mark.parametrize("way", WAYS)
def test_the_answer_comes_though_the_client_sends_no_more(start_server: Start, way: bytes) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"threads":64}').ready()  # one run at a time
    with connected(server) as first, connected(server) as second:
        first.sendall(post(ENDLESS))
        wait_until(lambda: server.pending == 1)
        second.sendall(post(BRIEF, more=way))
        second.shutdown(socket.SHUT_WR)
        # The second waits in line when its client's end is noticed, which the interim response shows.
        assert second.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        first.close()
        answers = read_all(second)
    assert answers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answers.count(b"connection: close") == 1
    wait_until(lambda: nobody_is_left(server))


def test_so_do_the_answers_of_several_requests(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"threads":1}').ready()
    with connected(server) as client:
        client.sendall(post(BRIEF) * 3)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).count(b"HTTP/1.1 200 OK") == 3
    wait_until(lambda: nobody_is_left(server))


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_has_gone_is_noticed(start_server: Start, way: bytes) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"threads":1}').ready()
    with connected(server) as client:
        client.sendall(post(ENDLESS, more=way))
        wait_until(lambda: server.pending == 1)
    wait_until(lambda: server.pending == 0 and nobody_is_left(server))


def test_one_that_goes_later_costs_no_more_than_its_time(start_server: Start) -> None:
    server = start_server("slow", PENSTOCK_SERVING='{"threads":1,"timeout":"1s"}').ready()
    with connected(server) as client:
        client.sendall(post(ENDLESS))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(25).startswith(b"HTTP/1.1 100 ")
    wait_until(lambda: server.pending == 0 and nobody_is_left(server))
    assert requests_by_outcome(server)["timeout"] == 1


@pytest.mark.parametrize(
    "sent", [post(b"{" * 100)[:-1], b"POST /v2/models/m/infer HT", b"", post(ENDLESS, version="1.0")]
)
def test_what_is_cut_off_or_cannot_be_asked_ends_the_connection(start_server: Start, sent: bytes) -> None:
    server = start_server("slow").ready()
    with connected(server) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    wait_until(lambda: nobody_is_left(server) and server.pending == 0)


def test_what_is_answered_at_once_is_answered_without_more_words(start_server: Start) -> None:
    server = start_server("iris").ready()
    with connected(server) as client:
        client.sendall(post(json.dumps(iris_request(SETOSA)).encode()))
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).startswith(b"HTTP/1.1 200 OK")
    wait_until(lambda: nobody_is_left(server))


def test_over_tls_such_a_client_has_gone(start_server: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mount = SecretMount(tmp_path / "tls")
    certificate, key = make_pair(tmp_path, "pair")
    mount.write(tls_crt=certificate, tls_key=key)
    server = start_server("slow", *tls(mount), PENSTOCK_SERVING='{"threads":1}').ready()
    caplog.clear()
    with caplog.at_level(logging.WARNING), connected(server) as plain:
        client = trusting(certificate).wrap_socket(plain, server_hostname="localhost")
        client.sendall(post(ENDLESS))
        wait_until(lambda: server.pending == 1)
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: server.pending == 0 and nobody_is_left(server))
        client.close()
    assert requests_by_outcome(server)["client_error"] == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
