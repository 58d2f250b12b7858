"""What servers of this protocol are known to get wrong, one test each; docs/conformance.md has the list."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.runtime.binary import blob_input, outputs, request, send, to_bytes
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.model_files import ECHO_TYPES, write_scaled
from tests.unit.runtime.process import SETOSA, Server, ServerThread, call, iris_request, tensor

X = tensor("X", "FP32", [1, 4], SETOSA)
BLOB = to_bytes("FP32", SETOSA)


def test_binary_requests_are_answered(iris: Server) -> None:
    body, length = request([blob_input("X", "FP32", [1, 4], 16)], BLOB, parameters={"binary_data_output": True})
    assert outputs(send(iris, body, length))["label"]["data"] == [0]


@pytest.mark.parametrize("surplus", [b"\0", b"more", BLOB])
def test_surplus_bytes_are_a_400(iris: Server, surplus: bytes) -> None:
    body, length = request([blob_input("X", "FP32", [1, 4], 16)], BLOB + surplus)
    reply = send(iris, body, length)
    assert (reply.status, f"{len(surplus)} bytes more" in reply.json["error"]) == (400, True)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", {}, {"inputs": 1}, {"inputs": [{**X, "shape": [1, 3]}]}, {"inputs": [{**X, "datatype": "FP64"}]},
     {"inputs": [{**X, "datatype": "INT7"}]}, {"inputs": [{**X, "data": ["a"] * 4}]}, {"inputs": [{**X, "data": 1}]}],
)  # fmt: skip
def test_every_bad_request_is_a_400_with_an_error_and_nothing_else(iris: Server, body: object) -> None:
    reply = iris.infer(body)
    assert (reply.status, reply.headers["content-type"], list(reply.json)) == (400, "application/json", ["error"])


def test_extensions_have_their_published_names_and_are_there(iris: Server) -> None:
    """Those of the data port; the repository's is the admin port's."""
    assert iris.get("/v2").json["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]
    assert iris.get("/v2/models/m/config").status == iris.get("/v2/models/m/stats").status == 200
    assert iris.command("index").json == [{"name": "m", "version": "1", "state": "READY", "reason": ""}]


def test_versions_are_in_paths_and_answers(iris: Server) -> None:
    reply = call(iris.http_port, "POST", "/v2/models/m/versions/1/infer", iris_request(SETOSA))
    assert (reply.status, reply.json["model_version"]) == (200, "1")
    unknown = call(iris.http_port, "POST", "/v2/models/m/versions/2/infer", iris_request(SETOSA))
    assert (unknown.status, "has no version '2'" in unknown.json["error"]) == (404, True)


def test_no_id_is_made_up_and_a_given_one_comes_back(iris: Server) -> None:
    assert "id" not in iris.infer(iris_request(SETOSA)).json
    assert iris.infer(iris_request(SETOSA, id="mine")).json["id"] == "mine"


def test_compressed_requests_and_answers(iris: Server) -> None:
    packed = gzip.compress(json.dumps(iris_request(*[SETOSA] * 500)).encode())
    reply = iris.infer(packed, **{"Content-Encoding": "gzip", "Accept-Encoding": "gzip"})
    assert (reply.status, reply.headers["content-encoding"]) == (200, "gzip")
    assert json.loads(gzip.decompress(reply.body))["outputs"][0]["data"] == [0] * 500


def test_half_precision_is_binary_only_in_both_directions(start_server: Start) -> None:
    half = start_server("half").ready()
    assert half.infer({"inputs": [tensor("x", "FP16", [1, 1], [1])]}).status == 400
    body, length = request([blob_input("x", "FP16", [1, 1], 2)], to_bytes("FP16", [1.5]))
    reply = send(half, body, length)
    assert (reply.status, "ask for it as binary data" in reply.json["error"]) == (400, True)
    body, length = request([blob_input("x", "FP16", [1, 1], 2)], to_bytes("FP16", [1.5]), outputs=[
        {"name": "y", "parameters": {"binary_data": True}}])  # fmt: skip
    assert outputs(send(half, body, length))["y"]["data"] == [3.0]


def test_nan_has_no_json_and_survives_in_binary_form(start_server: Start) -> None:
    scaled = start_server("scaled").ready()
    assert scaled.infer(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[NaN]}]}').status == 400
    assert scaled.infer({"inputs": [tensor("x", "FP32", [1, 1], [None])]}).status == 400
    body, length = request([blob_input("x", "FP32", [1, 1], 4)], to_bytes("FP32", [math.nan]))
    assert send(scaled, body, length).json["outputs"][0]["data"] == [None]
    body, length = request([blob_input("x", "FP32", [1, 1], 4)], to_bytes("FP32", [math.nan]),
                           parameters={"binary_data_output": True})  # fmt: skip
    assert math.isnan(outputs(send(scaled, body, length))["y"]["data"][0])


@pytest.mark.parametrize("shape", [[-1, 4], [1, -4], [-1, -4]])
def test_negative_sizes_are_a_400(iris: Server, shape: list[int]) -> None:
    assert iris.infer({"inputs": [{**X, "shape": shape}]}).status == 400
    body, length = request([blob_input("X", "FP32", shape, 16)], BLOB)
    assert send(iris, body, length).status == 400


def test_unknown_names_of_inputs_and_outputs_are_a_400(iris: Server) -> None:
    for body, word in (
        ({"inputs": [X, {**X, "name": "Y"}]}, "unknown input 'Y'"),
        ({"inputs": [X], "outputs": [{"name": "odds"}]}, "unknown output 'odds'"),
    ):
        reply = iris.infer(body)
        assert (reply.status, word in reply.json["error"]) == (400, True)


def test_a_server_without_models_is_not_ready(tmp_path: Path, start_repository: Callable[..., ServerThread]) -> None:
    write_scaled(tmp_path / "only")
    server = start_repository(tmp_path).ready()
    assert server.command("models/only/unload").status == 200
    reply = server.get("/v2/health/ready")
    assert (reply.status, reply.json) == (503, {"ready": False, "error": "there is no model"})
    assert server.get("/v2/health/live").status == 200


TRAPS = [("INT8", [128]), ("INT8", [1.0]), ("INT8", [True]), ("UINT64", [-1]), ("INT64", [2**63]),
         ("FP32", [1e39]), ("BOOL", [1]), ("BYTES", [1]), ("FP64", ["1"])]  # fmt: skip


@pytest.mark.parametrize(("datatype", "data"), TRAPS)
def test_no_value_is_converted_silently(echo: Server, datatype: str, data: list[object]) -> None:
    good = {"BOOL": False, "BYTES": ""}
    inputs = [tensor(name, name, [1, 2], [good.get(name, 0)] * 2) for name in ECHO_TYPES]
    assert echo.infer({"inputs": inputs}).status == 200
    wrong = [{**entry, "data": data * 2} if entry["name"] == datatype else entry for entry in inputs]
    reply = echo.infer({"inputs": wrong})
    assert (reply.status, f"input '{datatype}'" in reply.json["error"]) == (400, True)


def test_ragged_lists_and_inputs_given_twice_are_a_400(iris: Server) -> None:
    assert iris.infer({"inputs": [{**X, "shape": [2, 4], "data": [SETOSA, SETOSA[:3]]}]}).status == 400
    assert iris.infer({"inputs": [X, X]}).status == 400


@pytest.mark.parametrize("name", ["classification", "shared_memory_region"])
def test_extensions_that_are_not_there_are_refused_where_they_change_the_answer(iris: Server, name: str) -> None:
    asked = [{"name": "label", "parameters": {name: 2}}]
    reply = iris.infer(iris_request(SETOSA, outputs=asked))
    assert (reply.status, f"output 'label' has the parameter '{name}'" in reply.json["error"]) == (400, True)
    assert "classification" not in iris.get("/v2").json["extensions"]


def test_unknown_keys_and_parameters_are_ignored(iris: Server) -> None:
    reply = iris.infer({"inputs": [{**X, "more": {}, "parameters": {"mine": 1}}], "parameters": {"a": "b"}, "more": []})
    assert reply.json["outputs"][0]["data"] == [0]
