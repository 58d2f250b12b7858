"""Start and end of a serving process: what stops it from serving, and that it leaves without a failed request."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock_runtime.__main__ import main
from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.process import PORTS, SETOSA, ServerProcess, call, iris_request, tensor
from tests.unit.runtime.test_overload import wait_until

LOAD_FAILURES = [
    ("corrupt", "model.onnx is not an ONNX model: it was cut off or is damaged"),
    ("zipmap", "export with to_onnx(..., options={id(model): {'zipmap': False}})"),
    ("missing", "there is no such file or folder"),
    ("empty", "no .onnx file in"),
    ("two", "several .onnx files"),
]


@pytest.fixture(scope="module")
def odd_models(models: Path) -> Path:
    (models / "empty").mkdir()
    (models / "two").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (models / "two" / name).write_bytes(b"x")
    return models


@pytest.mark.usefixtures("quiet_logs")
@pytest.mark.parametrize(("model", "message"), LOAD_FAILURES)
def test_a_model_that_cannot_be_served_ends_the_command_and_says_why(
    odd_models: Path, tmp_path: Path, model: str, message: str
) -> None:
    assert refused(odd_models / model, tmp_path, "ModelLoadFailed", message)


def refused(model: Path, folder: Path, reason: str, message: str) -> bool:
    """Return whether serving `model` exits 1 with this in its termination log."""
    log = folder / "termination"
    code = main(["serve", *PORTS, "--model-path", str(model), "--termination-log", str(log)])
    report = json.loads(log.read_bytes())
    return code == 1 and report["reason"] == reason and message in report["message"]


def test_a_corrupt_model_ends_the_process(start_process: StartProcess) -> None:
    server = start_process("corrupt")
    assert server.wait_exit() == 1
    assert server.log[-1]["reason"] == "ModelLoadFailed"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"PENSTOCK_SERVING": "{"}, "PENSTOCK_SERVING: "),
        ({"PENSTOCK_SERVING": '{"maxBodyBytes":"64MB!"}'}, "serving: '64MB!' is no size; write it like 64Mi"),
        ({"PENSTOCK_SERVING": '{"threads":0}'}, "0 is less than 1"),
        ({"PENSTOCK_FEEDBACK": '{"window":"soon"}'}, "'soon' is no duration"),
        ({"PENSTOCK_FEEDBACK": '{"decision":"guess"}'}, "'guess' is not one of argmax, threshold, tolerance"),
        ({"PENSTOCK_FEEDBACK": '{"output":"score"}'}, "'score' is no output of the model"),
    ],
)
@pytest.mark.usefixtures("quiet_logs")
def test_a_wrong_setting_is_named(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], message: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert refused(models / "iris", tmp_path, "InvalidConfiguration", message)


@pytest.mark.usefixtures("quiet_logs")
def test_a_taken_port_is_known_before_the_model_is_loaded(tmp_path: Path, start_server: Start) -> None:
    port = str(start_server("iris").start().http_port)
    log = tmp_path / "termination"
    arguments = ["--model-path", "/nothing", "--http-port", port, "--termination-log", str(log)]
    assert main(["serve", *PORTS, *arguments]) == 1
    assert json.loads(log.read_bytes()) == {
        "reason": "InvalidConfiguration",
        "message": f"port {port} is taken by another process; choose another one",
    }


def test_settings_are_logged_at_the_start(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"threads":1}').ready()
    ready = {**server.loaded, **server.log[-1]}
    assert (ready["intra_op_threads"], ready["models"], ready["revision"]) == (1, ["m"], "none")
    assert ready["inline_elements"] >= 4, "a small forest runs on the event loop"
    assert start_server("slow").ready().loaded["inline_elements"] == 0


def test_a_request_in_flight_at_the_end_of_the_grace_is_finished(start_process: StartProcess) -> None:
    server = start_process("slow", "--drain-seconds", "0").ready()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(server.infer, {"inputs": [tensor("n", "INT64", [1], [3000])]})
        wait_until(lambda: in_flight(server))
        server.terminate()
        reply = job.result()
    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    assert server.wait_exit() == 0
    assert server.log[-1]["finished"] is True


def test_what_does_not_end_in_time_is_answered_with_503(start_process: StartProcess) -> None:
    server = start_process("slow", "--drain-seconds", "0", "--shutdown-seconds", "0.5").ready()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(server.infer, {"inputs": [tensor("n", "INT64", [1], [2**40])]})
        wait_until(lambda: in_flight(server))
        server.terminate()
        reply = job.result()
    assert (reply.status, reply.json) == (503, {"error": "the server is shutting down"})
    assert server.wait_exit() == 0
    assert server.log[-1] == {**server.log[-1], "msg": "stopped", "finished": False}


def in_flight(server: ServerProcess) -> bool:
    """Return whether the slow model is at work: then another request has to wait."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=0.2)
    try:
        connection.request("POST", "/v2/models/m/infer", json.dumps({"inputs": [tensor("n", "INT64", [1], [0])]}))
        connection.getresponse().read()
    except TimeoutError:
        return True
    finally:
        connection.close()
    return False


def test_during_the_grace_requests_are_still_answered_and_clients_told_to_leave(start_process: StartProcess) -> None:
    server = start_process("iris", "--drain-seconds", "30").ready()
    assert "connection" not in server.infer(iris_request(SETOSA)).headers
    server.terminate()
    server.wait_log("draining")
    assert server.get("/v2/health/ready").status == 503
    assert server.get("/v2/models/m/ready").json == {"name": "m", "ready": False, "error": "shutting down"}
    assert server.get("/v2/health/live").status == 200
    reply = server.infer(iris_request(SETOSA))
    assert (reply.status, reply.headers["connection"]) == (200, "close")


class Balancer:
    """What Kubernetes does for clients: sends new connections to servers that were ready when last asked."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self._servers = servers
        self.ready = list(servers)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe)
        self._thread.start()

    def _probe(self) -> None:
        while not self._stop.wait(0.05):
            self.ready = [server for server in self.ready if self._is_ready(server)]

    @staticmethod
    def _is_ready(server: ServerProcess) -> bool:
        try:
            return call(server.http_port, "GET", "/v2/health/ready").status == 200
        except OSError:
            return False

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Load:
    """Clients that keep their connections until told to leave, and count every failure."""

    def __init__(self, balancer: Balancer, clients: int) -> None:
        self._balancer = balancer
        self._stop = threading.Event()
        self._body = json.dumps(iris_request(SETOSA))
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        self.served = [0] * clients
        self.failures: list[str] = []
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            if connection is None or connection.sock is None:
                ready = self._balancer.ready
                port = ready[self.served[number] % len(ready)].http_port
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.connect()
            try:
                connection.request("POST", "/v2/models/m/infer", self._body)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(str(response.status))
            except OSError as error:
                self.failures.append(repr(error))
                connection.close()
            self.served[number] += 1
        if connection is not None:
            connection.close()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_sigterm_under_load_fails_no_request(start_process: StartProcess) -> None:
    leaving, staying = start_process("iris", "--drain-seconds", "1").ready(), start_process("iris").ready()
    balancer = Balancer([leaving, staying])
    load = Load(balancer, clients=8)
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


def test_sigterm_before_the_model_is_loaded_ends_at_once(start_process: StartProcess) -> None:
    server = start_process("iris").start()
    server.terminate()
    started = time.monotonic()
    assert server.wait_exit() == 0
    assert time.monotonic() - started < 15
