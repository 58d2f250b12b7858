"""The Open Inference Protocol as a client sees it, on a real server."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from tests.unit.runtime.conftest import Start, StartProcess
from tests.unit.runtime.process import (
    SETOSA,
    VIRGINICA,
    Server,
    call,
    iris_request,
    tensor,
)
from tests.unit.runtime.scrape import requests_by_outcome

BASE = "/v2/models/m"


def test_health_is_live_and_ready(iris: Server) -> None:
    assert iris.get("/v2/health/live").json == {"live": True}
    assert iris.get("/v2/health/ready").json == {"ready": True}
    assert call(iris.http_port, "HEAD", "/v2/health/ready").status == 200


def test_server_metadata(iris: Server) -> None:
    metadata = iris.get("/v2").json
    assert metadata["name"] == "penstock-runtime"
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])
    assert metadata["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]


@pytest.mark.parametrize("path", [BASE, f"{BASE}/versions/1"])
def test_model_metadata(iris: Server, path: str) -> None:
    assert iris.get(path).json == {
        "name": "m",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }
    assert iris.get(f"{path}/ready").json == {"name": "m", "ready": True}


@pytest.mark.parametrize("path", [f"{BASE}/infer", f"{BASE}/versions/1/infer"])
def test_inference(iris: Server, path: str) -> None:
    reply = call(iris.http_port, "POST", path, iris_request(SETOSA, VIRGINICA))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["penstock-revision"] == "none"
    assert reply.headers["penstock-prediction-id"]
    body = reply.json
    assert sorted(body) == ["model_name", "model_version", "outputs"]
    assert (body["model_name"], body["model_version"]) == ("m", "1")
    label, scores = body["outputs"]
    assert label == {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 2]}
    assert (scores["name"], scores["datatype"], scores["shape"]) == ("probabilities", "FP32", [2, 3])
    assert scores["data"][0] > 0.9
    assert scores["data"][5] > 0.9


def test_the_id_comes_back_if_given_even_if_empty(iris: Server) -> None:
    assert iris.infer(iris_request(SETOSA, id="call 7")).json["id"] == "call 7"
    assert iris.infer(iris_request(SETOSA, id="")).json["id"] == ""


def test_only_requested_outputs_come_and_the_prediction_is_still_signed(iris: Server) -> None:
    reply = iris.infer(iris_request(SETOSA, outputs=[{"name": "probabilities"}]))
    assert [output["name"] for output in reply.json["outputs"]] == ["probabilities"]
    prediction = reply.headers["penstock-prediction-id"]
    assert iris.feedback([{"id": prediction, "label": 0}]).json["accepted"] == 1


ECHO_VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False], "BYTES": ["å", ""], "FP32": [1.5, -0.1], "FP64": [0.1, 1e300],
    "INT8": [-128, 127], "INT16": [-32768, 32767], "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1], "UINT8": [0, 255], "UINT16": [0, 65535], "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
}  # fmt: skip


def test_every_json_datatype_survives_the_round_trip(echo: Server) -> None:
    inputs = [tensor(name, name, [1, 2], values) for name, values in ECHO_VALUES.items()]
    reply = echo.infer({"inputs": inputs})
    assert reply.status == 200, reply.body
    outputs = {output["name"]: output for output in reply.json["outputs"]}
    for name, values in ECHO_VALUES.items():
        assert outputs[f"out_{name}"] == tensor(f"out_{name}", name, [1, 2], values)


def test_nested_data_and_empty_batches(echo: Server) -> None:
    inputs = [tensor(name, name, [2, 2], [values, values]) for name, values in ECHO_VALUES.items()]
    assert echo.infer({"inputs": inputs}).json["outputs"][0]["data"] == [True, False, True, False]
    empty = [tensor(name, name, [0, 2], []) for name in ECHO_VALUES]
    assert echo.infer({"inputs": empty}).json["outputs"][0] == tensor("out_BOOL", "BOOL", [0, 2], [])


def test_text_labels(start_server: Start) -> None:
    server = start_server("text").ready()
    reply = server.infer(iris_request(SETOSA))
    assert reply.json["outputs"][0] == tensor("label", "BYTES", [1], ["setosa"])
    prediction = reply.headers["penstock-prediction-id"]
    assert server.feedback([{"id": prediction, "label": "setosa"}]).json["accepted"] == 1
    assert 'result="correct",cohort="none"} 1' in server.metrics_text()


def test_half_precision_needs_binary_and_infinity_becomes_null(start_server: Start) -> None:
    half = start_server("half").ready()
    assert half.get(BASE).json["inputs"][0]["datatype"] == "FP16"
    refused = half.infer({"inputs": [tensor("x", "FP16", [1, 1], [1])]})
    assert (refused.status, "JSON cannot carry" in refused.json["error"]) == (400, True)
    scaled = start_server("scaled").ready()
    reply = scaled.infer({"inputs": [tensor("x", "FP32", [2, 1], [3e38, 1])]})
    assert reply.json["outputs"][0]["data"] == [None, 2.0]


FAILURES: list[tuple[str, str, object, dict[str, str], int]] = [
    ("GET", "/", None, {}, 404),
    ("GET", "/v2/models", None, {}, 404),
    ("GET", "/v2/models/other", None, {}, 404),
    ("GET", "/v2/models/other/ready", None, {}, 404),
    ("GET", "/v2/models/other/config", None, {}, 404),
    ("GET", "/v2/models/other/stats", None, {}, 404),
    ("GET", f"{BASE}/versions/2/config", None, {}, 404),
    ("GET", f"{BASE}/versions/2/stats", None, {}, 404),
    ("POST", f"{BASE}/config", {}, {}, 405),
    ("POST", f"{BASE}/stats", {}, {}, 405),
    ("POST", "/v2/models/stats", {}, {}, 405),
    ("POST", "/v2/models/other/infer", {}, {}, 404),
    ("GET", f"{BASE}/versions/2", None, {}, 404),
    ("POST", f"{BASE}/versions/2/infer", {}, {}, 404),
    ("GET", f"{BASE}/versions/1/config/infer", None, {}, 404),
    ("POST", "/v2/health/live", {}, {}, 405),
    ("PUT", BASE, {}, {}, 405),
    ("GET", f"{BASE}/infer", None, {}, 405),
    ("DELETE", f"{BASE}/infer", None, {}, 405),
    ("POST", f"{BASE}/infer", b"{", {}, 400),
    ("POST", f"{BASE}/infer", {"inputs": []}, {}, 400),
    ("POST", f"{BASE}/infer", b"\x1f\x8b", {"Content-Encoding": "gzip"}, 400),
    ("POST", f"{BASE}/infer", b"\x1f\x8b", {"Content-Encoding": "br"}, 415),
    ("GET", f"{BASE}/feedback", None, {}, 404),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status"), FAILURES)
def test_every_failure_is_an_error_object(
    iris: Server, method: str, path: str, body: object, headers: dict[str, str], status: int
) -> None:
    reply = call(iris.http_port, method, path, body, headers)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json) == ["error"]
    assert reply.json["error"]
    assert ("allow" in reply.headers) == (status == 405)


def test_bytes_that_are_not_http_get_an_error_object_too(iris: Server) -> None:
    with socket.create_connection(("127.0.0.1", iris.http_port)) as raw:
        raw.settimeout(10)
        raw.sendall(b"this is not http\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body == b'{"error":"Invalid HTTP request received."}'


def test_a_model_that_fails_inside_is_the_servers_error(start_server: Start) -> None:
    server = start_server("picky").ready()
    good = server.infer({"inputs": [tensor("x", "FP32", [4], [1, 2, 3, 4])]})
    assert good.json["outputs"][0]["shape"] == [2, 2]
    reply = server.infer({"inputs": [tensor("x", "FP32", [3], [1, 2, 3])]})
    assert reply.status == 500
    assert reply.json["error"].startswith("the model failed: ")
    assert requests_by_outcome(server) == {
        "ok": 1, "client_error": 0, "server_error": 1, "rejected": 0, "timeout": 0,
    }  # fmt: skip


def test_nothing_of_a_request_is_logged(start_process: StartProcess) -> None:
    server = start_process("iris", "--drain-seconds", "0").ready()
    secret = "tell-nobody"
    server.infer(iris_request(SETOSA, id=secret))
    server.infer({"inputs": [tensor(secret, "FP32", [1], [1])]})
    server.infer(secret.encode())
    call(server.http_port, "GET", f"/{secret}?{secret}")
    call(server.admin_port, "POST", f"{BASE}/feedback", [{"id": secret, "label": secret}])
    server.terminate()
    assert server.wait_exit() == 0
    assert secret not in str(server.log)
    assert [line["msg"] for line in server.log][-1] == "stopped"
