"""Binary tensors: every datatype both ways, mixed with JSON, and asked for output by output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.session import Session
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from tests.unit.runtime.binary import LENGTH, blob_input, outputs, request, send, to_bytes
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.model_files import write_brain
from tests.unit.runtime.process import SETOSA, VIRGINICA, Server, call, iris_request, tensor
from tests.unit.runtime.scrape import requests_by_outcome, sample

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False], "BYTES": ["å\0b", ""], "FP32": [1.5, -0.25], "FP64": [0.1, 1e300],
    "INT8": [-128, 127], "INT16": [-32768, 32767], "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1], "UINT8": [0, 255], "UINT16": [0, 65535], "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
}  # fmt: skip
BLOBS = {kind: to_bytes(kind, values) for kind, values in VALUES.items()}


def test_every_datatype_survives_both_ways(echo: Server) -> None:
    inputs = [blob_input(kind, kind, [1, 2], len(blob)) for kind, blob in BLOBS.items()]
    body, length = request(inputs, *BLOBS.values(), id="b", parameters={"binary_data_output": True})
    found = outputs(send(echo, body, length))
    assert {name[4:]: output["data"] for name, output in found.items()} == VALUES
    assert all(output["shape"] == [1, 2] for output in found.values())


def test_json_and_binary_inputs_are_mixed_in_any_order(echo: Server) -> None:
    inputs, blobs = [], []
    for number, (kind, values) in enumerate(VALUES.items()):
        if number % 2:
            inputs.append(tensor(kind, kind, [1, 2], values))
        else:
            inputs.append(blob_input(kind, kind, [1, 2], len(BLOBS[kind])))
            blobs.append(BLOBS[kind])
    reply = send(echo, *request(inputs, *blobs))
    assert reply.headers["content-type"] == "application/json"
    assert LENGTH.lower() not in reply.headers
    assert {output["name"][4:]: output["data"] for output in reply.json["outputs"]} == VALUES


@pytest.mark.parametrize("datatype", list(VALUES))
def test_tensors_of_no_elements_have_no_bytes(echo: Server, datatype: str) -> None:
    inputs = [blob_input(kind, kind, [0, 2], 0) for kind in VALUES]
    wanted = [{"name": f"out_{datatype}", "parameters": {"binary_data": True}}]
    found = outputs(send(echo, *request(inputs, outputs=wanted)))
    assert found == {f"out_{datatype}": {
        "name": f"out_{datatype}", "datatype": datatype, "shape": [0, 2], "parameters": {"binary_data_size": 0},
        "data": [],
    }}  # fmt: skip


def test_each_output_may_overrule_the_requests_default(iris: Server) -> None:
    wanted = [{"name": "probabilities"}, {"name": "label", "parameters": {"binary_data": False}}]
    reply = iris.infer(iris_request(SETOSA, outputs=wanted, parameters={"binary_data_output": True}))
    found = outputs(reply)
    assert list(found) == ["probabilities", "label"]
    assert found["label"] == tensor("label", "INT64", [1], [0])
    assert found["probabilities"]["parameters"] == {"binary_data_size": 12}
    assert found["probabilities"]["data"][0] > 0.9
    wanted = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    found = outputs(iris.infer(iris_request(SETOSA, outputs=wanted)))
    assert found["label"]["data"] == [0]
    assert len(found["probabilities"]["data"]) == 3


def test_the_id_and_the_model_are_in_a_binary_answer_too(iris: Server) -> None:
    reply = iris.infer(iris_request(SETOSA, id="7", parameters={"binary_data_output": True}))
    head = reply.body[: int(reply.headers[LENGTH.lower()])]
    assert head.startswith(b'{"model_name":"m","model_version":"1","id":"7","outputs":[{"name":"label",')


def test_binary_requests_are_counted_signed_and_judged_like_json_ones(start_server: Start) -> None:
    server = start_server("iris").ready()
    rows = to_bytes("FP32", SETOSA + VIRGINICA)
    body, length = request(
        [blob_input("X", "FP32", [2, 4], len(rows))], rows, parameters={"binary_data_output": True},
        outputs=[{"name": "probabilities"}],
    )  # fmt: skip
    reply = send(server, body, length)
    assert outputs(reply)["probabilities"]["shape"] == [2, 3]
    assert reply.headers["penstock-revision"] == "none"
    prediction = reply.headers["penstock-prediction-id"]
    assert server.feedback([{"id": prediction, "label": [0, 2]}]).json["accepted"] == 1
    assert 'result="correct",cohort="none"} 2' in server.metrics_text()
    assert requests_by_outcome(server)["ok"] == 1
    assert sample(server, "penstock_batch_size_sum") == 2
    assert sample(server, "penstock_prediction_total", **{"class": "2"}) == 1


def test_half_precision_goes_in_and_out(start_server: Start) -> None:
    server = start_server("half").ready()
    halves = to_bytes("FP16", [1.5, -0.25])
    body, length = request([blob_input("x", "FP16", [2, 1], 4)], halves, parameters={"binary_data_output": True})
    reply = send(server, body, length)
    assert outputs(reply)["y"]["data"] == [3.0, -0.5]
    in_json = send(server, *request([blob_input("x", "FP16", [2, 1], 4)], halves))
    assert (in_json.status, "'binary_data': true" in in_json.json["error"]) == (400, True)
    item = {"id": reply.headers["penstock-prediction-id"], "label": [2.5, -0.5]}
    assert server.feedback([item]).json["accepted"] == 1


def test_an_input_in_the_middle_of_the_body_is_neither_copied_nor_shifted_where_it_is_aligned() -> None:
    schema = ModelSchema((TensorSpec("x", "FP64", (-1,)),), ())
    body, length = request([blob_input("x", "FP64", [3], 24)], to_bytes("FP64", [1.0, 2.0, 3.0]))
    for lead in range(8):
        moved = b" " * lead + body
        array = Decoder(schema).decode(moved, length + lead).inputs["x"]
        assert array.tolist() == [1.0, 2.0, 3.0]
        assert array.flags.aligned
        shared = np.shares_memory(array, np.frombuffer(moved, np.uint8))
        assert shared == ((length + lead) % 8 == 0)


def test_a_large_body_that_comes_in_pieces_is_put_together_aligned(start_server: Start) -> None:
    server = start_server("scaled").ready()
    numbers = np.arange(300_000, dtype="<f4")
    for spaces in range(4):
        entry = blob_input("x", "FP32", [300_000, 1], numbers.nbytes)
        body, length = request([entry], numbers.tobytes(), parameters={"binary_data_output": True}, note=" " * spaces)
        found = outputs(send(server, body, length))
        assert found["y"]["data"] == (numbers * 2).tolist()


def test_a_header_over_all_of_a_json_request_changes_nothing(iris: Server) -> None:
    body, length = request([tensor("X", "FP32", [1, 4], SETOSA)])
    assert send(iris, body, length).json["outputs"][0]["data"] == [0]
    reply = call(iris.http_port, "POST", "/v2/models/m/versions/1/infer", body, {LENGTH: str(length)})
    assert reply.status == 200


def test_bfloat16_is_refused_at_loading_with_what_to_do(tmp_path: Path) -> None:
    write_brain(tmp_path / "brain")
    with pytest.raises(
        ModelLoadError, match=r"'x' is of type tensor\(bfloat16\); numpy has no bfloat16.*Cast to float"
    ):
        Session(tmp_path / "brain" / "model.onnx", 1)
