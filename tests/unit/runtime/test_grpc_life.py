"""gRPC from before the model is loaded to the last call: no call fails because a server leaves."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckResponse

from penstock_runtime.__main__ import main
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.grpc.forwarding import Forwarding
from penstock_runtime.server.grpc.inference import Inferences
from penstock_runtime.server.grpc.listener import GrpcListener
from penstock_runtime.server.grpc.services import Services
from penstock_runtime.server.grpc.shadowing import Shadowing
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.security.security import Security
from penstock_runtime.server.settings import add_arguments, read_settings
from penstock_runtime.server.traffic import Traffic
from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.grpc_client import INFER, Client, iris_raw, slow_request
from tests.unit.runtime.process import DEADLINE, PORTS, SETOSA, ServerProcess, call
from tests.unit.runtime.test_lifecycle import in_flight
from tests.unit.runtime.test_overload import wait_until

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def test_health_follows_the_model_from_before_it_is_loaded_until_the_end(models: Path) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    arguments = [*PORTS, "--model-path", str(models / "iris"), "--model-name", "m"]
    settings = read_settings(parser.parse_args(arguments), {})
    repository = Repository(settings, Keys(Path("/nothing")), settings.feedback, "none")
    traffic = Traffic(settings.serving, list)
    inferences = Inferences(repository, Forwarding(traffic.forwarder), Shadowing(traffic.shadower))
    listener = GrpcListener(Services(inferences), settings, 0, Security(settings.security))
    listener.start()
    ask = asyncio.to_thread
    with Client(listener.port) as client:
        watches = [client.watch(service) for service in ("", "m")]

        async def told() -> list[int]:
            return [(await ask(next, watch)).status for watch in watches]

        assert await told() == [NOT_SERVING, NOT_SERVING]
        assert (await ask(client.check)).answer.status == NOT_SERVING
        assert (await ask(client.ask, "ServerLive")).answer.live
        assert not (await ask(client.ask, "ServerReady")).answer.ready
        assert not (await ask(client.ask, "ModelReady", pb.ModelReadyRequest(name="m"))).answer.ready
        refused = await ask(client.infer, iris_raw(SETOSA))
        assert (refused.code, refused.details) == (StatusCode.UNAVAILABLE, "the model is not loaded yet")
        repository.settle()
        assert repository.models["m"].metrics.requests["rejected"] == 1
        await repository.load_all()
        listener.changed()
        assert await told() == [SERVING, SERVING]
        assert (await ask(client.infer, iris_raw(SETOSA))).code == StatusCode.OK
        repository.draining = True
        listener.changed()
        assert await told() == [NOT_SERVING, NOT_SERVING]
        assert not (await ask(client.ask, "ModelReady", pb.ModelReadyRequest(name="m"))).answer.ready
        assert (await ask(client.infer, iris_raw(SETOSA))).code == StatusCode.OK
        assert await listener.stop(asyncio.get_running_loop().time() + 5)
        for watch in watches:
            assert await ask(watch.code) == StatusCode.UNAVAILABLE
    repository.close()


def test_during_the_grace_calls_are_still_answered(start_process: StartProcess) -> None:
    server = start_process("iris", "--drain-seconds", "30").ready()
    with Client(server.grpc_port) as client:
        watch = client.watch("m")
        assert next(watch).status == SERVING
        server.terminate()
        assert next(watch).status == NOT_SERVING
        assert client.check().answer.status == NOT_SERVING
        assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK


def test_a_call_in_flight_at_the_end_of_the_grace_is_finished(start_process: StartProcess) -> None:
    server = start_process("slow", "--drain-seconds", "0").ready()
    with Client(server.grpc_port) as client:
        running = client.start(slow_request(3000))
        wait_until(lambda: in_flight(server))
        server.terminate()
        assert running.result(DEADLINE).model_name == "m"
        assert server.wait_exit() == 0
    assert server.log[-1] == {**server.log[-1], "msg": "stopped", "finished": True, "cut_off": 0}


def test_what_does_not_end_in_time_is_answered_with_unavailable(start_process: StartProcess) -> None:
    server = start_process("slow", "--drain-seconds", "0", "--shutdown-seconds", "0.5").ready()
    with Client(server.grpc_port) as client:
        running = client.start(slow_request(2**40))
        wait_until(lambda: in_flight(server))
        server.terminate()
        error = running.exception(DEADLINE)
        assert (error.code(), error.details()) == (StatusCode.UNAVAILABLE, "the server is shutting down")
    assert server.wait_exit() == 0
    assert server.log[-1] == {**server.log[-1], "msg": "stopped", "finished": False}


class Balancer:
    """What Kubernetes does: hands each new connection to a server that was ready when last asked."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self._servers = servers
        self._stop = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.ready = list(servers)
        self._threads = [threading.Thread(target=each) for each in (self._probe, self._accept)]
        for thread in self._threads:
            thread.start()

    def _probe(self) -> None:
        while not self._stop.wait(0.05):
            self.ready = [server for server in self.ready if self._is_ready(server)]

    @staticmethod
    def _is_ready(server: ServerProcess) -> bool:
        try:
            return call(server.http_port, "GET", "/v2/health/ready").status == 200
        except OSError:
            return False

    def _accept(self) -> None:
        for number in itertools.count():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            ready = self.ready
            server = socket.create_connection(("127.0.0.1", ready[number % len(ready)].grpc_port))
            self._threads.append(threading.Thread(target=self._connect, args=(client, server)))
            self._threads[-1].start()

    def _connect(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            back = threading.Thread(target=self._copy, args=(server, client))
            back.start()
            self._copy(client, server)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._stop.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()


class Load:
    """Clients with a channel each that call without a pause, and keep every failure."""

    def __init__(self, port: int, clients: int) -> None:
        self._stop = threading.Event()
        self._payload = iris_raw(SETOSA).SerializeToString()
        self.served = [0] * clients
        self.failures: list[Any] = []
        self._threads = [threading.Thread(target=self._run, args=(n, port)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, port: int) -> None:
        with Client(port) as client:
            while not self._stop.is_set():
                outcome = client.call(INFER, self._payload, pb.ModelInferResponse)
                if outcome.code != StatusCode.OK:
                    self.failures.append(outcome)
                self.served[number] += 1

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_sigterm_under_load_fails_no_call(start_process: StartProcess) -> None:
    leaving, staying = start_process("iris", "--drain-seconds", "2").ready(), start_process("iris").ready()
    balancer = Balancer([leaving, staying])
    load = Load(balancer.port, clients=8)
    try:
        wait_until(lambda: min(load.served) >= 20)
        leaving.terminate()
        assert leaving.wait_exit() == 0
        after = list(load.served)
        wait_until(lambda: all(now >= then + 20 for now, then in zip(load.served, after, strict=True)))
    finally:
        load.close()
        balancer.close()
    assert load.failures == []
    assert leaving.log[-1] == {**leaving.log[-1], "msg": "stopped", "finished": True}


def test_it_can_be_switched_off(start_server: Start) -> None:
    server = start_server("iris", "--grpc-port", "-1").ready()
    assert server.grpc_port is None
    assert server.get("/v2/health/ready").status == 200


@pytest.mark.usefixtures("quiet_logs")
def test_a_taken_port_is_known_before_the_model_is_loaded(tmp_path: Path, start_server: Start) -> None:
    port = str(start_server("iris").start().grpc_port)
    log = tmp_path / "termination"
    arguments = ["--model-path", "/nothing", "--grpc-port", port, "--termination-log", str(log)]
    assert main(["serve", *PORTS, *arguments]) == 1
    assert json.loads(log.read_bytes()) == {
        "reason": "InvalidConfiguration",
        "message": f"port {port} is taken by another process; choose another one",
    }
