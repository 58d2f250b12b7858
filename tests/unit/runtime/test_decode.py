"""What an inference request may look like, and what it may not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from tests.unit.runtime.process import tensor

SCHEMA = ModelSchema(
    inputs=(TensorSpec("x", "FP32", (-1, 2)),),
    outputs=(TensorSpec("label", "INT64", (-1,)), TensorSpec("scores", "FP32", (-1, 3))),
)


def decode(message: object, schema: ModelSchema = SCHEMA) -> Any:
    return Decoder(schema).decode(json.dumps(message).encode())


def single(datatype: str, shape: list[int], data: object, spec_shape: tuple[int, ...] | None = (-1,)) -> Any:
    schema = ModelSchema((TensorSpec("v", datatype, spec_shape),), ())
    return decode({"inputs": [tensor("v", datatype, shape, data)]}, schema).inputs["v"]


@pytest.mark.parametrize("data", [[1, 2.5, 3, 4], [[1, 2.5], [3, 4]]])
def test_flat_and_nested_data_are_the_same(data: list[Any]) -> None:
    request = decode({"id": "a", "inputs": [tensor("x", "FP32", [2, 2], data)]})
    assert request.inputs["x"].tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert request.inputs["x"].dtype == np.float32
    assert (request.id, request.rows, request.outputs) == ("a", 2, ("label", "scores"))


def test_requested_outputs_keep_their_order_and_unknown_keys_are_ignored() -> None:
    message = {
        "inputs": [{**tensor("x", "FP32", [1, 2], [1, 2]), "note": {"a": 1}}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": False}}, {"name": "label"}],
        "parameters": {"priority": 1, "tag": "t", "flag": True, "share": 0.5},
        "future": [1, 2],
    }
    request = decode(message)
    assert request.outputs == ("scores", "label")
    assert request.id is None


@pytest.mark.parametrize("outputs", [None, []])
def test_no_outputs_asked_for_means_all(outputs: object) -> None:
    message = {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])], "outputs": outputs}
    assert decode(message).outputs == ("label", "scores")


@pytest.mark.parametrize(
    ("shape", "spec_shape", "data", "expected"),
    [
        ([0, 2], (-1, 2), [], (0, 2)),
        ([2, 1, 2], (-1, 1, 2), [[[1, 2]], [[3, 4]]], (2, 1, 2)),
        ([1, 1, 1], None, [1], (1, 1, 1)),
        ([], None, [1], ()),
    ],
)
def test_shapes_from_empty_to_deep(
    shape: list[int], spec_shape: tuple[int, ...] | None, data: object, expected: tuple[int, ...]
) -> None:
    assert single("FP32", shape, data, spec_shape).shape == expected


BAD_DATA = [
    ("FP32", [1], ["1.5"], "a string cannot be an element of FP32"),
    ("FP32", [1], [None], "null cannot be"),
    ("FP32", [1], [True], "a boolean cannot be"),
    ("FP32", [1], [1e300], "out of the range"),
    ("FP32", [2], [1.0], "1 elements in 'data', shape [2] needs 2"),
    ("FP32", [1], [1, 2], "2 elements"),
    ("FP32", [1], 1.0, "'data' must be a list"),
    ("FP32", [-1], [1], "integers >= 0"),
    ("FP32", [1.0], [1], "integers >= 0"),
    ("FP32", [True], [1], "integers >= 0"),
    ("FP32", "1", [1], "integers >= 0"),
    ("FP32", [1, 1], [1], "does not fit the model's [-1]"),
    ("INT64", [1], [1.0], "a number with a fraction or exponent cannot be"),
    ("INT64", [2], [1, True], "a boolean cannot be"),
    ("INT64", [1], [2**63], "out of the range of INT64"),
    ("INT8", [1], [128], "out of the range of INT8"),
    ("UINT8", [1], [-1], "out of the range of UINT8"),
    ("UINT64", [1], [-1], "out of the range of UINT64"),
    ("BOOL", [1], [1], "an integer cannot be"),
    ("BYTES", [1], [1], "an integer cannot be"),
    ("BYTES", [1], [{}], "an object cannot be"),
    ("FP16", [1], [1], "JSON cannot carry"),
]


@pytest.mark.parametrize(("datatype", "shape", "data", "message"), BAD_DATA)
def test_values_are_refused_rather_than_converted(datatype: str, shape: Any, data: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        single(datatype, shape, data)
    assert message in error.value.message
    assert error.value.status == 400


X = tensor("x", "FP32", [1, 2], [1, 2])
BAD_REQUESTS: list[tuple[object, str]] = [
    ([], "must be a JSON object"),
    ({}, "'inputs' must be a list"),
    ({"inputs": {}}, "'inputs' must be a list"),
    ({"inputs": []}, "missing input 'x'"),
    ({"inputs": ["x"]}, "must be an object"),
    ({"inputs": [X, X]}, "'x' is given twice"),
    ({"inputs": [{**X, "name": "y"}]}, "unknown input 'y'; the model takes 'x'"),
    ({"inputs": [{**X, "name": 1}]}, "unknown input"),
    ({"inputs": [{**X, "name": ["x"]}]}, "unknown input"),
    ({"inputs": [{**X, "datatype": "FP64"}]}, "datatype is 'FP64', the model takes FP32"),
    ({"inputs": [{**X, "datatype": None}]}, "the model takes FP32"),
    ({"inputs": [{**X, "shape": [1, 3]}]}, "does not fit"),
    ({"inputs": [{**X, "shape": [2, 2], "data": [[1, 2], [3]]}]}, "does not have the shape"),
    ({"inputs": [{**X, "shape": [2, 2], "data": [[1, 2], 3]}]}, "does not have the shape"),
    ({"inputs": [{**X, "shape": [1, 2], "data": [[[1, 2]]]}]}, "does not have the shape"),
    ({"inputs": [{**X, "data": [1, [2]]}]}, "a list cannot be an element"),
    ({"inputs": [{**X, "parameters": [1]}]}, "'parameters' of input 'x' must be an object"),
    ({"inputs": [X], "id": 7}, "'id' must be a string"),
    ({"inputs": [X], "parameters": {"a": {}}}, "parameter 'a' of the request"),
    ({"inputs": [X], "outputs": {}}, "'outputs' must be a list"),
    ({"inputs": [X], "outputs": ["label"]}, "unknown output"),
    ({"inputs": [X], "outputs": [{"name": "other"}]}, "unknown output 'other'; the model gives 'label', 'scores'"),
    ({"inputs": [X], "outputs": [{"name": "label"}, {"name": "label"}]}, "asked for twice"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), BAD_REQUESTS)
def test_malformed_requests_say_what_is_wrong(message: object, expected: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        decode(message)
    assert expected in error.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b'{"inputs": [NaN]}', b"null"])
def test_bytes_that_are_no_json_object(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        Decoder(SCHEMA).decode(body)


def test_an_output_json_cannot_carry_is_refused_only_if_asked_for() -> None:
    schema = ModelSchema((), (TensorSpec("half", "FP16", (-1,)), TensorSpec("full", "FP32", (-1,))))
    with pytest.raises(InvalidRequest, match="'half' is FP16, which JSON cannot carry"):
        decode({"inputs": []}, schema)
    assert decode({"inputs": [], "outputs": [{"name": "full"}]}, schema).outputs == ("full",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["inputs", "name", "shape", "datatype", "data", "x"]), inner, max_size=5)
    ),
    max_leaves=25,
)


@given(json_values, st.sampled_from(["inputs", "outputs", "shape", "data", "datatype", "name", "parameters", "id"]))
def test_no_value_anywhere_makes_the_decoder_crash(value: object, key: str) -> None:
    entry = {**X, key: value} if key in X else X
    message = {"inputs": [entry], **({key: value} if key not in X else {})}
    try:
        request = decode(message)
    except InvalidRequest:
        return
    assert request.inputs["x"].shape[1] == 2
