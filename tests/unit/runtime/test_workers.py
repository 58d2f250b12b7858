"""Several processes behind one port: to callers, to Prometheus and to those who send labels they are one server."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path
from typing import TypeVar

import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckResponse

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.grpc_client import Client, iris_raw
from tests.unit.runtime.model_files import write_scaled
from tests.unit.runtime.process import SETOSA, ServerProcess, call, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.secret_files import connect, make_pair, trusting
from tests.unit.runtime.test_overload import wait_until
from tests.unit.runtime.test_repository import CONTROL

WORKERS = 3
S = TypeVar("S", bound=ServerProcess)


def start(start_process: StartProcess, model: str, *arguments: str) -> ServerProcess:
    """Return a server once all its workers are ready."""
    return follow_workers(start_process(model, "--workers", str(WORKERS), "--drain-seconds", "0", *arguments))


def follow_workers(server: S) -> S:
    """Wait until all workers of `server` are ready, and know the ports that they share."""
    server.wait_log("listening")
    while (line := server.log[-1]).get("workers") != WORKERS:
        server.wait_log("listening")
    server.http_port, server.admin_port, server.metrics_port = (line[f"{n}_port"] for n in ("http", "admin", "metrics"))
    server.grpc_port = line["grpc_port"]
    while server.wait_log("ready").get("workers") != WORKERS:
        pass
    return server


@pytest.fixture
def iris(start_process: StartProcess) -> ServerProcess:
    return start(start_process, "iris")


def test_a_model_is_ready_once_all_workers_have_it(start_server: Start) -> None:
    server = start_server("iris").ready()
    server._process._repository.waits_for_others = True  # as in a worker that was quicker than the others
    for path in ("/v2/health/ready", "/v2/models/m/ready"):
        reply = server.get(path)
        assert (reply.status, reply.json["error"]) == (503, "workers still load their models")
    with Client(server.grpc_port) as client:
        assert not client.ask("ModelReady", pb.ModelReadyRequest(name="m")).answer.ready
    server._process._repository.waits_for_others = False
    assert server.get("/v2/models/m/ready").status == 200


def children(server: ServerProcess) -> list[int]:
    pid = server._process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def infer_on_new_connections(server: ServerProcess, count: int) -> list[str]:
    """Return the ids of `count` predictions, each asked for on a connection of its own."""
    return [server.infer(iris_request(SETOSA)).headers["penstock-prediction-id"] for _ in range(count)]


def test_the_workers_numbers_are_summed_up(iris: ServerProcess) -> None:
    ids = infer_on_new_connections(iris, 60)
    assert len(set(ids)) == 60
    assert requests_by_outcome(iris)["ok"] == 60
    assert sample(iris, "penstock_request_duration_seconds_count") == 60
    assert sample(iris, "penstock_model_loaded") == 1
    each = [worker["inference_count"] for worker in stats_of_workers(iris)]
    assert sum(each) == 60
    assert sum(count > 0 for count in each) > 1, "the kernel spreads connections"


def stats_of_workers(server: ServerProcess) -> list[dict[str, int]]:
    """Return the stats extension of every worker, asked on as many connections as it takes to meet them all."""
    found: dict[str, dict[str, int]] = {}

    def met_all() -> bool:
        item = server.get("/v2/models/m/stats").json["model_stats"][0]
        found[json.dumps(item)] = item
        return len(found) == WORKERS or sum(each["inference_count"] for each in found.values()) == 60

    wait_until(met_all)
    return list(found.values())


def test_grpc_is_spread_and_summed_up_too(iris: ServerProcess) -> None:
    for _ in range(60):
        with Client(iris.grpc_port) as client:
            assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK
            assert client.check("m").answer.status == HealthCheckResponse.SERVING
    assert requests_by_outcome(iris)["ok"] == 60
    assert sum(worker["inference_count"] > 0 for worker in stats_of_workers(iris)) > 1


def test_a_label_counts_once_whichever_worker_predicted(iris: ServerProcess) -> None:
    ids = infer_on_new_connections(iris, 30)
    body = [{"id": each, "label": 0} for each in ids]
    assert iris.feedback(body).json == {"accepted": 30, "rejected": {"unmatched": 0, "duplicate": 0, "expired": 0}}
    assert iris.feedback(body).json["rejected"]["duplicate"] == 30
    assert sample(iris, "penstock_feedback_total", result="correct") == 30


def test_a_command_reaches_all_workers(start_process: StartProcess, tmp_path: Path) -> None:
    write_scaled(tmp_path)
    server = start(start_process, str(tmp_path), *CONTROL)

    def factors() -> set[float]:
        body = {"inputs": [tensor("x", "FP32", [1, 1], [1.0])]}
        return {server.infer(body).json["outputs"][0]["data"][0] for _ in range(30)}

    assert factors() == {2.0}
    write_scaled(tmp_path, factor=3.0)
    assert server.command("models/m/load").status == 200
    assert factors() == {3.0}
    assert sample(server, "penstock_model_loads_total", result="ok") == 2 * WORKERS
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08no")
    reply = server.command("models/m/load")
    assert (reply.status, "was not loaded" in reply.json["error"]) == (400, True)
    assert factors() == {3.0}
    assert "the last load failed" in server.command("index").json[0]["reason"]


def test_failures_are_passed_on(iris: ServerProcess) -> None:
    assert call(iris.admin_port, "GET", "/nothing").status == 404
    assert iris.feedback({}).status == 400
    assert call(iris.metrics_port, "GET", "/nothing").status == 404
    assert call(iris.metrics_port, "POST", "/metrics").status == 405


def test_the_end_loses_no_request(start_process: StartProcess) -> None:
    iris = start(start_process, "iris", "--drain-seconds", "2")
    connections = [http.client.HTTPConnection("127.0.0.1", iris.http_port, timeout=60) for _ in range(12)]
    body = json.dumps(iris_request(SETOSA))
    for connection in connections:
        connection.request("POST", "/v2/models/m/infer", body)
        assert connection.getresponse().read()
    iris.terminate()
    for _ in range(WORKERS):
        iris.wait_log("draining")
    for connection in connections:
        connection.request("POST", "/v2/models/m/infer", body)
        reply = connection.getresponse()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        reply.read()
        connection.close()
    assert iris.wait_exit() == 0


def test_a_worker_that_dies_ends_the_server(iris: ServerProcess) -> None:
    os.kill(children(iris)[1], signal.SIGKILL)
    assert iris.wait_exit() == 1
    assert iris.log[-1]["msg"] != "ready"
    assert any(line["msg"] == "a worker ended by itself" for line in iris.log)


def test_workers_end_with_their_supervisor(iris: ServerProcess) -> None:
    workers = children(iris)
    assert len(workers) == WORKERS
    iris._process.kill()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_reason(
    start_process: StartProcess, tmp_path: Path
) -> None:
    log = tmp_path / "termination"
    assert start_process("corrupt", "--workers", "2", "--termination-log", str(log)).wait_exit() == 1
    assert json.loads(log.read_bytes())["reason"] == "ModelLoadFailed"


def test_the_page_shows_the_sum_and_a_try_runs_once(start_process: StartProcess, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("open-sesame")
    server = start(start_process, "iris", "--admin-token-file", str(tokens))
    token = {"Authorization": "Bearer open-sesame", "Content-Type": "application/json"}
    infer_on_new_connections(server, 30)
    state = call(server.admin_port, "GET", "/state", headers=token).json
    assert state["ready"] is True
    (model,) = state["models"]
    assert (model["requests"]["ok"], sum(count for _, count in model["durations"])) == (30, 30)
    assert model["batches"] == [30.0, 30]
    tried = call(server.admin_port, "POST", "/try/m", iris_request(SETOSA), token)
    assert tried.json == server.infer(iris_request(SETOSA)).json
    assert requests_by_outcome(server)["ok"] == 31
    assert call(server.admin_port, "GET", "/").status == 401


def test_every_port_speaks_tls_for_the_workers(start_process: StartProcess, tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path, "workers")
    (tmp_path / "tls.crt").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(key)
    files = ("--tls-cert-file", str(tmp_path / "tls.crt"), "--tls-key-file", str(tmp_path / "tls.key"))
    server = start(start_process, "iris", *files, "--tls-ports", "http,admin,metrics")
    for port, path in ((server.http_port, "/v2"), (server.admin_port, "/state"), (server.metrics_port, "/metrics")):
        connection = connect(port, trusting(certificate))
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()
