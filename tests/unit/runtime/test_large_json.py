"""Long lists of numbers: read by another parser, with the same tensors and the same errors."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_runtime.protocol import decode as decode_module
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.large_json import LARGE_BYTES, Numbers, parse_large
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

TYPES = ("FP32", "FP64", "INT8", "UINT8", "INT32", "INT64", "UINT64", "BOOL", "BYTES", "FP16")
SCHEMAS = {
    name: ModelSchema((TensorSpec("x", name, None), TensorSpec("y", "FP32", (-1,))), (TensorSpec("z", "FP32", (-1,)),))
    for name in TYPES
}
PADDING = " " * LARGE_BYTES

# All that may stand where a number is expected, and numbers at the ends of what types hold.
ELEMENTS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 16777217, 9007199254740993]),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, -0.0, 3.4028235e38, 3.4028236e38, 1e39, 1e308, 5e-324, 1.0]),
    st.sampled_from([None, True, False, "1", "[", [], [1], {}]),
)
NUMBERS = st.one_of(st.integers(-3, 100), st.floats(-9, 9, width=32))


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.lists(st.integers(0, 20), min_size=1, max_size=3))
    count = int(np.prod(shape))
    base = draw(st.lists(NUMBERS, min_size=1, max_size=8))
    flat: list[Any] = [base[index % len(base)] for index in range(min(count, 600))]
    if draw(st.booleans()) and flat:
        flat[draw(st.integers(0, len(flat) - 1))] = draw(ELEMENTS)
    data: Any = flat
    if draw(st.booleans()) and len(flat) == count:
        for dim in reversed(shape[1:]):
            data = [data[at : at + dim] for at in range(0, len(data), dim)] if dim else []
        if draw(st.booleans()) and data and type(data[0]) is list and data[0]:
            data[0] = data[0][:-1]
    entry = {"name": "x", "datatype": draw(st.sampled_from(TYPES)), "shape": shape, "data": data}
    odd = draw(st.sampled_from(["", "", "", "name", "shape", "data", "parameters", "extra"]))
    if odd:
        entry[odd] = draw(st.one_of(ELEMENTS, st.lists(ELEMENTS, max_size=3)))
    return entry


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {
        "inputs": [draw(entries()), {"name": "y", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}]
    }
    for key in draw(st.lists(st.sampled_from(["id", "outputs", "parameters", "other"]), unique=True)):
        message[key] = draw(
            st.sampled_from(["text", 7, None, [], [{"name": "z"}], ["z"], {"binary_data_output": False}, {"a": [1]}])
        )
    return message


def outcome(decoder: Decoder, text: bytes) -> object:
    """Return what must be the same whoever reads `text`."""
    try:
        request = decoder.decode(text)
    except InvalidRequest as error:
        return error.message
    tensors = {name: (array.dtype, array.shape, array.tobytes()) for name, array in request.inputs.items()}
    return request._replace(inputs={}), tensors


@settings(max_examples=400, deadline=None)
@given(messages(), st.sampled_from(TYPES), st.booleans())
def test_both_readers_agree(message: dict[str, Any], datatype: str, claimed: bool) -> None:
    if claimed:
        message["inputs"][0]["datatype"] = datatype
    text = (json.dumps(message) + PADDING).encode()
    decoder = Decoder(SCHEMAS[datatype])
    found = outcome(decoder, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_module, "LARGE_BYTES", len(text) + 1)
        assert outcome(decoder, text) == found


def numbers(shape: list[int], datatype: str = "FP32", nested: bool = False) -> tuple[bytes, np.ndarray[Any, Any]]:
    array = (np.random.default_rng(0).random(shape) * 100).astype(np.float32 if datatype == "FP32" else np.int32)
    data = array.tolist() if nested else array.ravel().tolist()
    return json.dumps({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]}).encode(), array


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("datatype", ["FP32", "INT32"])
def test_images_are_read_without_objects(datatype: str, nested: bool) -> None:
    text, array = numbers([1, 3, 32, 32], datatype, nested)
    message = parse_large(text, {"x": TensorSpec("x", datatype, None)})
    assert message is not None
    data = message["inputs"][0]["data"]
    assert isinstance(data, Numbers)
    assert data.array.dtype == array.dtype
    assert np.array_equal(data.array, array)


@pytest.mark.parametrize(
    "text",
    [b'{"inputs":[{"name":"x","shape":[2],"data":[1,[2]]}]}', b'{"inputs":[{"name":"x","shape":[2],"data":[1,2]}]',
     b'{"inputs":[{"name":"x","shape":[2],"data":[1,true]}]}', b'{"inputs":{"name":"x"}}', b"[1]", b"7", b"",
     b'{"inputs":[{"name":"x","shape":[3],"data":[1,2]}]}', b'{"inputs":[{"name":"q","shape":[1],"data":[1]}]}',
     b'{"inputs":[{"name":"x","shape":[1],"data":[1],"data":[2]}]}', b'{"id":"[","inputs":[]}',
     b'{"inputs":[{"name":"x","shape":[9223372036854775807,[1]],"data":[]}]}',
     b'{"inputs":[{"name":"x","shape":[-1,-2],"data":[1,2]}]}', b'{"inputs":[{"name":"x","shape":"2","data":[1,2]}]}',
     b'{"inputs":[{"name":"x","shape":[true,2],"data":[1,2]}]}',
     b'{"inputs":[{"name":"x","shape":[2.0],"data":[1,2]}]}'],
)  # fmt: skip
def test_what_is_unusual_is_left_to_the_other_reader(text: bytes) -> None:
    assert parse_large(text, {"x": TensorSpec("x", "FP32", None)}) is None


def test_many_keys_and_many_dimensions_take_no_time() -> None:
    keys = ",".join(f'"{number}":{number}' for number in range(200_000))
    shape = [2**62] * 100_000
    decoder = Decoder(SCHEMAS["FP32"])
    start = time.process_time()
    for text in (
        "{" + keys + ',"inputs":[]}',
        '{"inputs":[{' + keys + "}]}",
        json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": [1]}]}),
    ):
        with pytest.raises(InvalidRequest):
            decoder.decode(text.encode())
    assert time.process_time() - start < 20, "looked up one by one they take minutes"
