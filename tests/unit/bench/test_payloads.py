"""Requests are what Penstock's own decoder takes; answers are read from every protocol, and differences seen."""

from __future__ import annotations

import numpy as np
import pytest

from bench.server.messages import ModelInferRequest, ModelInferResponse
from bench.server.payloads import differences, grpc_frame, read_answer, request
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.encode import encode_response
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

ROW = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
SCHEMA = ModelSchema(
    (TensorSpec("X", "FP32", (-1, 4)),), (TensorSpec("p", "FP32", (-1, 3)), TensorSpec("label", "INT64", (-1,)))
)
OUTPUTS = {"p": np.array([[0.5, 0.25, 0.25]], np.float32), "label": np.array([2])}


@pytest.mark.parametrize("protocol", ["json", "binary"])
def test_http_requests_and_answers_are_of_the_protocol(protocol: str) -> None:
    body, headers = request(protocol, "X", ROW)  # type: ignore[arg-type]
    length = headers.get("inference-header-content-length")
    decoded = Decoder(SCHEMA).decode(body, None if length is None else int(length))
    np.testing.assert_array_equal(decoded.inputs["X"], ROW)
    assert decoded.binary == (frozenset(OUTPUTS) if protocol == "binary" else frozenset())
    answer, header = encode_response(
        "m", "1", None, [("p", "FP32", OUTPUTS["p"]), ("label", "INT64", OUTPUTS["label"])], decoded.binary
    )
    got = read_answer(protocol, answer, {} if header is None else {"inference-header-content-length": str(header)})  # type: ignore[arg-type]
    assert differences(OUTPUTS, got) == ""


def test_a_grpc_request_and_its_answer() -> None:
    body, headers = request("grpc", "X", ROW)
    sent = ModelInferRequest.FromString(body)
    assert (sent.model_name, sent.inputs[0].name, list(sent.inputs[0].shape)) == ("m", "X", [1, 4])
    assert sent.raw_input_contents[0] == ROW.tobytes()
    assert headers["content-type"] == "application/grpc"
    assert grpc_frame(body) == b"\0" + len(body).to_bytes(4, "big") + body
    answer = ModelInferResponse(raw_output_contents=[array.tobytes() for array in OUTPUTS.values()])
    answer.outputs.add(name="p", datatype="FP32", shape=[1, 3])
    answer.outputs.add(name="label", datatype="INT64", shape=[1])
    assert differences(OUTPUTS, read_answer("grpc", answer.SerializeToString(), {})) == ""


def test_wrong_answers_are_seen() -> None:
    assert differences(OUTPUTS, {"p": OUTPUTS["p"]}) == "outputs ['p'], not ['label', 'p']"
    assert "has 2 elements, not 3" in differences(OUTPUTS, {**OUTPUTS, "p": np.zeros(2)})
    flat = OUTPUTS["p"].ravel()
    assert differences(OUTPUTS, {"p": flat + 1e-3, "label": OUTPUTS["label"]}).startswith("output p is ")
    assert differences(OUTPUTS, {"p": flat + 1e-6, "label": OUTPUTS["label"]}) == ""
