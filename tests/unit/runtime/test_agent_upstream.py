"""An agent before upstreams that are slow, broken, gone or not yet there: what the client gets, and what is counted."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import time

import pytest

from tests.unit.runtime.conftest import StartAgent, StartProcess
from tests.unit.runtime.forwarding import NONE, forwarded, never, start_target, tell, url
from tests.unit.runtime.load import Load, until
from tests.unit.runtime.process import SETOSA, AgentProcess, Reply, ServerProcess, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.targets import Script, Target, response
from tests.unit.runtime.test_lifecycle import in_flight

READY = response(200, b"{}")


class Upstream(Target):
    """A server that is ready, and treats requests to infer by a script."""

    def __init__(self, script: Script) -> None:
        super().__init__(lambda connection, number: self._answer(script, connection, number))

    def _answer(self, script: Script, connection: socket.socket, number: int) -> bool:
        if self.requests[-1].startswith(b"GET "):
            connection.sendall(READY)
            return True
        return script(connection, number)


def start(targets: list[Target], start_agent: StartAgent, script: Script, **env: str) -> tuple[Upstream, AgentProcess]:
    upstream = Upstream(script)
    targets.append(upstream)
    return upstream, start_agent(upstream.url, **env).ready()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def sending(raw: bytes, *, close: bool = False) -> Script:
    def script(connection: socket.socket, _number: int) -> bool:
        connection.sendall(raw)
        return not close

    return script


@pytest.mark.parametrize(
    ("raw", "close"),
    [
        (b"this is no HTTP\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", True),
        (b"", True),
    ],
)
def test_what_is_no_whole_answer_is_a_502(
    targets: list[Target], start_agent: StartAgent, raw: bytes, close: bool
) -> None:
    _, agent = start(targets, start_agent, sending(raw, close=close))
    reply = agent.infer(iris_request(SETOSA))
    assert reply.status == 502
    assert reply.json["error"].startswith("the upstream server ")
    assert reply.headers["penstock-revision"] == "none"
    assert requests_by_outcome(agent) == {**NONE, "server_error": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no json", b"[]", b"{}", b'{"outputs": 5}', b'{"outputs": [5]}', b'{"outputs": [{"name": "label"}]}',
        b'{"outputs": [{"name": "label", "datatype": "INT64", "shape": [2], "data": [1]}]}',
        b'{"outputs": [{"name": "label", "datatype": "INT64", "shape": [-1], "data": [1]}]}',
        b'{"outputs": [{"name": "label", "datatype": "BF16", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "label", "datatype": "FP32", "shape": [1], "data": {"a": 1}}]}',
        b'{"outputs": [{"name": "label", "datatype": "INT64", "shape": ["x"], "data": [1]}]}',
        b"[" * 100_000, b'{"outputs": [], "a": ' + b"1" * 2**20 + b"}",
    ],
    ids=range(14),
)  # fmt: skip
def test_an_answer_that_cannot_be_read_passes_with_an_id_of_one_row(
    targets: list[Target], start_agent: StartAgent, body: bytes
) -> None:
    _, agent = start(targets, start_agent, sending(response(200, body)))
    reply = agent.infer(iris_request(SETOSA))
    assert (reply.status, reply.body) == (200, body)
    assert requests_by_outcome(agent) == {**NONE, "ok": 1}
    name = reply.headers["penstock-prediction-id"]
    assert agent.feedback([{"id": name, "label": 0}]).json["rejected"]["unmatched"] == 1
    assert agent.feedback([{"id": name, "correct": True}]).json["accepted"] == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (201, "ok"), (204, "ok"), (308, "client_error"), (400, "client_error"), (429, "rejected"),
     (500, "server_error"), (502, "server_error"), (503, "rejected"), (504, "timeout")],
)  # fmt: skip
def test_the_outcome_is_the_upstreams_status(
    targets: list[Target], start_agent: StartAgent, status: int, outcome: str
) -> None:
    raw = response(status, b"{}", "x-own: 1", "connection: x-hop", "x-hop: 1")
    if status == 204:
        raw = b"HTTP/1.1 204 X\r\nx-own: 1\r\n\r\n"
    _, agent = start(targets, start_agent, sending(raw))
    reply = agent.infer(iris_request(SETOSA))
    assert reply.status == status
    assert reply.headers["x-own"] == "1"
    assert "x-hop" not in reply.headers
    assert ("penstock-prediction-id" in reply.headers) == (outcome == "ok")
    assert requests_by_outcome(agent) == {**NONE, outcome: 1}


def test_what_passes_to_the_upstream(targets: list[Target], start_agent: StartAgent) -> None:
    upstream, agent = start(targets, start_agent, sending(response(200, b"{}")))
    connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=60)
    sent = {"x-user": "7", "content-encoding": "zstd", "connection": "x-hop, keep-alive", "x-hop": "1"}
    connection.request("PUT", "/any/path%20x?a=1&b=%2F", b"\x00body", sent)
    assert connection.getresponse().read() == b"{}"
    connection.close()
    head, _, body = upstream.requests[-1].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "PUT /any/path%20x?a=1&b=%2F HTTP/1.1"
    assert body == b"\x00body"
    assert {"x-user: 7", "content-encoding: zstd", "content-length: 5"} <= set(headers)
    assert f"host: 127.0.0.1:{upstream.port}" in headers
    assert not [each for each in headers if each.startswith(("x-hop", "connection"))]


def test_connections_to_the_upstream_are_used_again(targets: list[Target], start_agent: StartAgent) -> None:
    upstream, agent = start(targets, start_agent, sending(response(200, b"{}")))
    for _ in range(20):
        assert agent.infer(iris_request(SETOSA)).status == 200
    # One for requests, one for looks.
    assert upstream.connections == 2


def test_an_upstream_that_is_slow_costs_a_request_its_time_and_no_other_request_anything(
    start_process: StartProcess, start_agent: StartAgent
) -> None:
    upstream = start_process("slow").ready()
    agent = start_agent(url(upstream), PENSTOCK_SERVING='{"timeout": "500ms"}').ready()

    def infer(loops: int) -> Reply:
        return agent.infer({"inputs": [tensor("n", "INT64", [1], [loops])]})

    began = time.monotonic()
    late = infer(1_000_000)
    assert late.status == 504
    assert 0.5 <= time.monotonic() - began < 10
    # Its client has gone, so the upstream has stopped the run by and by.
    while requests_by_outcome(upstream)["client_error"] == 0:
        assert time.monotonic() - began < 60
    assert infer(0).status == 200
    assert requests_by_outcome(agent) == {**NONE, "ok": 1, "timeout": 1}


def test_a_client_that_goes_is_gone_for_the_upstream_too(targets: list[Target], start_agent: StartAgent) -> None:
    upstream, agent = start(targets, start_agent, never)
    with socket.create_connection(("127.0.0.1", agent.http_port)) as client:
        client.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        end = time.monotonic() + 60
        while not any(each.startswith(b"POST") for each in upstream.requests):
            assert time.monotonic() < end
    assert upstream.gone.wait(60)
    while requests_by_outcome(agent) == NONE:
        assert time.monotonic() < end
    assert requests_by_outcome(agent) == {**NONE, "client_error": 1}


def test_more_requests_than_may_wait_are_refused_at_once(targets: list[Target], start_agent: StartAgent) -> None:
    upstream, agent = start(targets, start_agent, never, PENSTOCK_SERVING='{"maxQueue": 2}')
    held = [socket.create_connection(("127.0.0.1", agent.http_port)) for _ in range(2)]
    for client in held:
        client.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
    end = time.monotonic() + 60
    while sum(each.startswith(b"POST") for each in upstream.requests) < 2:
        assert time.monotonic() < end
    reply = agent.infer(iris_request(SETOSA))
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert requests_by_outcome(agent)["rejected"] == 1
    for client in held:
        client.close()


async def test_it_waits_for_an_upstream_that_is_not_there_and_sees_it_go_and_come(
    start_process: StartProcess, start_agent: StartAgent
) -> None:
    port = free_port()
    agent = start_agent(f"http://127.0.0.1:{port}").start()
    assert agent.wait_log("the upstream is not ready")["why"] == "the upstream server cannot be asked: unreachable"
    assert agent.get("/v2/health/ready").status == 503
    assert agent.get("/v2/health/live").status == 200
    reply = agent.infer(iris_request(SETOSA))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert agent.get("/v2/models/m").status == 503
    upstream = start_process("iris", "--http-port", str(port))
    agent.wait_log("ready")
    assert agent.get("/v2/health/ready").status == 200
    assert agent.infer(iris_request(SETOSA)).status == 200
    upstream.kill()
    agent.wait_log("the upstream is not ready")
    assert agent.get("/v2/health/ready").status == 503
    assert sample(agent, "penstock_model_loaded") == 0
    start_process("iris", "--http-port", str(port))
    agent.wait_log("the upstream is ready")
    assert agent.infer(iris_request(SETOSA)).status == 200
    assert requests_by_outcome(agent) == {**NONE, "ok": 2, "rejected": 1}
    assert sample(agent, "penstock_model_loads_total", result="ok") == 2


def outcomes_seen(load: Load) -> dict[str, float]:
    """Return what the clients of `load` have seen, as the metrics call it."""
    statuses = [re.match(r"\d+", failure) for failure in load.failures]
    assert all(statuses), load.failures
    found = [int(match[0]) for match in statuses if match is not None]
    return {**NONE, "ok": load.answers.total(), "rejected": found.count(503), "server_error": found.count(502)}


async def test_an_upstream_that_is_killed_under_load_is_counted_as_the_clients_see_it(
    start_process: StartProcess, start_agent: StartAgent
) -> None:
    port = free_port()
    upstream = start_process("iris", "--http-port", str(port)).ready()
    agent = start_agent(f"http://127.0.0.1:{port}").ready()
    load = Load(agent.http_port)
    running = asyncio.create_task(load.run(1_000_000, clients=8))
    await load.reach(300)
    upstream.kill()
    await until(lambda: len(load.failures) >= 100)
    answered = load.answers.total()
    again = start_process("iris", "--http-port", str(port))
    # At the first request, not after a pause.
    await load.reach(300)
    await load.stop(running)
    await asyncio.to_thread(again.ready)
    assert answered < load.answers.total()
    seen = outcomes_seen(load)
    assert requests_by_outcome(agent) == seen
    assert seen["server_error"] <= 8


async def test_a_canary_whose_upstream_dies_costs_no_user_of_stable_anything(
    start_process: StartProcess, start_agent: StartAgent
) -> None:
    stable = start_process("iris", PENSTOCK_REVISION="stable").ready()
    upstream = start_process("iris").ready()
    canary = start_agent(url(upstream), PENSTOCK_REVISION="canary").ready()
    tell(stable, to=url(canary), share=0.5)
    load = Load(stable.http_port)
    running = asyncio.create_task(load.run(1_000_000, clients=8))
    await load.reach(300)
    upstream.kill()
    await load.reach(500)
    await load.stop(running)
    assert load.failures == []
    counted = requests_by_outcome(canary)
    assert counted["ok"] == load.answers["canary"] == forwarded(stable)["forwarded"]
    assert counted["rejected"] + counted["server_error"] == forwarded(stable)["fallback"] > 0


async def test_a_drain_under_load_fails_no_request(start_process: StartProcess, start_agent: StartAgent) -> None:
    upstream = start_process("iris").ready()
    agent = start_agent(url(upstream), "--drain-seconds", "1", PENSTOCK_REVISION="r1").ready()
    load = Load(agent.http_port)
    running = asyncio.create_task(load.run(1_000_000, clients=8))
    await load.reach(200)
    agent.terminate()
    await until(lambda: agent.get("/v2/health/ready").status == 503)
    await load.reach(100)
    await load.stop(running)
    assert await asyncio.to_thread(agent.wait_exit) == 0
    assert agent.log[-1]["msg"] == "stopped"
    assert agent.log[-1]["finished"] is True
    assert load.failures == []


def test_a_drain_waits_for_what_the_upstream_has_not_answered_yet(
    start_process: StartProcess, start_agent: StartAgent
) -> None:
    upstream: ServerProcess = start_process("slow").ready()
    agent = start_agent(url(upstream), "--drain-seconds", "0").ready()
    connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=60)
    connection.request("POST", "/v2/models/m/infer",
                       b'{"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [10000]}]}')  # fmt: skip
    end = time.monotonic() + 60
    while not in_flight(upstream):
        assert time.monotonic() < end
    agent.terminate()
    assert agent.wait_log("draining")["in_flight"] == 1
    assert connection.getresponse().status == 200
    connection.close()
    assert agent.wait_exit() == 0


def test_what_takes_longer_than_the_drain_gets_an_answer_that_says_so(
    targets: list[Target], start_agent: StartAgent
) -> None:
    upstream = Upstream(never)
    targets.append(upstream)
    agent = start_agent(upstream.url, "--drain-seconds", "0", "--shutdown-seconds", "0.2").ready()
    connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=60)
    connection.request("POST", "/v2/models/m/infer", b"{}")
    end = time.monotonic() + 60
    while not any(each.startswith(b"POST") for each in upstream.requests):
        assert time.monotonic() < end
    agent.terminate()
    assert connection.getresponse().status == 503
    connection.close()
    assert agent.wait_exit() == 0
    assert agent.log[-1]["finished"] is False


def test_a_look_that_is_late_now_and_then_is_no_reason_to_be_not_ready(
    targets: list[Target], start_agent: StartAgent
) -> None:
    silent: list[int] = []

    def script(connection: socket.socket, number: int) -> bool:
        if len(silent) < 2 and number > 4:
            silent.append(number)
            return True
        connection.sendall(READY)
        return True

    upstream = start_target(targets, script)
    agent = start_agent(upstream.url, "--protocol", "oip").ready()
    end = time.monotonic() + 60
    while len(silent) < 1 or len(upstream.requests) < 12:
        assert agent.get("/v2/health/ready").status == 200
        assert time.monotonic() < end
