"""Whatever bytes come, decoding ends in a request or in a 4xx that says why; what fits comes back exactly."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_runtime.protocol.binary_data import read_header_length
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.encode import encode_response
from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.protocol.schema import ELEMENTS, ModelSchema, TensorSpec
from tests.fuzz.changes import change_bytes, element, places
from tests.unit.runtime.binary import blob_input, from_bytes, request, to_bytes
from tests.unit.runtime.process import tensor

SCHEMA = ModelSchema(
    inputs=(*(TensorSpec(kind, kind, (-1, 2)) for kind in ELEMENTS), TensorSpec("any", "INT32", None)),
    outputs=(*(TensorSpec(f"out_{kind}", kind, (-1, 2)) for kind in ELEMENTS), TensorSpec("out_any", "INT32", None)),
)
DECODER = Decoder(SCHEMA)
RAW = Decoder(ModelSchema((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),)))
ROUNDS = 20_000


@st.composite
def tensors(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[bytes], dict[str, list[Any]], dict[str, list[int]]]:
    """Return inputs in any order, some of them binary; their blobs; and what is in them, flat, with its shape."""
    inputs, blobs, values, shapes = [], [], {}, {}
    rows = draw(st.integers(0, 40))
    # Values by a seed: drawn one by one they would take most of the test's time, and matter least.
    rng = random.Random(draw(st.integers(0, 2**32)))
    for spec in draw(st.permutations(SCHEMA.inputs)):
        shape = [rows, 2] if spec.shape else draw(st.sampled_from([[], [1], [2, 1, 2], [0, 3]]))
        size = int(np.prod(shape))
        flat = [element(rng, spec.datatype) for _ in range(size)]
        if not spec.json_types or draw(st.booleans()):
            blobs.append(to_bytes(spec.datatype, flat))
            inputs.append(blob_input(spec.name, spec.datatype, shape, len(blobs[-1])))
        else:
            nested = shape == [rows, 2] and draw(st.booleans())
            data = [flat[at : at + 2] for at in range(0, size, 2)] if nested else flat
            inputs.append(tensor(spec.name, spec.datatype, shape, data))
        values[spec.name], shapes[spec.name] = flat, shape
    return inputs, blobs, values, shapes


@settings(max_examples=150)
@given(tensors(), st.booleans(), st.sampled_from([b"", b" ", b"\n   "]))
def test_what_fits_comes_back_exactly(made: Any, all_binary: bool, lead: bytes) -> None:
    inputs, blobs, values, shapes = made
    wanted = [{"name": f"out_{spec.name}", "parameters": {"binary_data": all_binary or not spec.json_types}}
              for spec in SCHEMA.inputs]  # fmt: skip
    body, length = request(inputs, *blobs, outputs=wanted)
    decoded = DECODER.decode(lead + body, len(lead) + length)
    outputs = [(name, spec.datatype, decoded.inputs[spec.name])
               for name, spec in zip(decoded.outputs, SCHEMA.inputs, strict=True)]  # fmt: skip
    answer, head = encode_response("m", "1", None, outputs, decoded.binary)
    assert head is not None
    rest = answer[head:]
    for output in json.loads(answer[:head])["outputs"]:
        name = output["name"].removeprefix("out_")
        data = output.get("data")
        if data is None:
            size = output["parameters"]["binary_data_size"]
            data, rest = from_bytes(output["datatype"], rest[:size]), rest[size:]
        if output["datatype"] == "FP32":  # JSON has the shortest number that is the same FP32
            data = np.array(data, "<f4").tolist()
        assert output["shape"] == shapes[name]
        assert data == values[name]
        assert list(map(type, data)) == list(map(type, values[name]))
    assert not rest


def attempt(decoder: Decoder, body: bytes, header: bytes | None) -> InferRequest | None:
    """Do as the server does; anything but an answer or a 4xx fails the test."""
    try:
        return decoder.decode(body, None if header is None else read_header_length(header))
    except ProtocolError as error:
        if 400 <= error.status < 500 and error.message:
            return None
        raise


odd: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just([]) | st.just({})
)


@settings(max_examples=300)
@given(tensors(), st.data())
def test_a_valid_request_with_one_thing_changed_is_answered_or_refused(made: Any, data: st.DataObject) -> None:
    inputs, blobs, _, _ = made
    message: dict[str, Any] = {"id": "a", "parameters": {"binary_data_output": True}, "inputs": inputs}
    container, key = data.draw(st.sampled_from(list(places(message))))
    if data.draw(st.booleans()):
        container[key] = data.draw(odd)
    elif isinstance(container, dict):
        del container[key]
    else:
        container.insert(key, container[key])
    head = json.dumps(message).encode()
    length = len(head) + data.draw(st.sampled_from([0, 0, 0, 1, -1, 1000, -len(head)]))
    decoded = attempt(DECODER, head + b"".join(blobs), str(length).encode())
    if decoded is not None:
        assert list(decoded.inputs) == [entry["name"] for entry in inputs]


@given(st.binary(max_size=300), st.none() | st.integers(-2, 400).map(lambda number: str(number).encode()) | st.binary())
def test_no_bytes_at_all_break_it(body: bytes, header: bytes | None) -> None:
    attempt(DECODER, body, header)
    attempt(RAW, body, header)


def seeds() -> list[tuple[Decoder, bytes, int | None]]:
    """Return valid requests of every kind."""
    rng = random.Random(1)
    found: list[tuple[Decoder, bytes, int | None]] = [(RAW, to_bytes("FP32", [1, 2, 3, 4]), 0)]
    for rows in (0, 1, 40):
        inputs: list[dict[str, Any]] = []
        blobs = []
        for spec in SCHEMA.inputs:
            size, shape = (2 * rows, [rows, 2]) if spec.shape else (4, [2, 2])
            flat = ["å" if spec.datatype == "BYTES" else spec.datatype == "BOOL" or 1] * size
            if spec.datatype == "FP16" or rng.random() < 0.5:
                blobs.append(to_bytes(spec.datatype, flat))
                inputs.append(blob_input(spec.name, spec.datatype, shape, len(blobs[-1])))
            else:
                inputs.append(tensor(spec.name, spec.datatype, shape, flat))
        body, length = request(inputs, *blobs, id="a", parameters={"binary_data_output": True, "priority": 1})
        found.append((DECODER, body, length))
    plain, _ = request([tensor("x", "FP32", [2, 2], [[1.5, 2], [3, 4e3]])], outputs=[{"name": "y"}])
    return [*found, (RAW, plain, None)]


@pytest.mark.parametrize("seed", range(4))
def test_bytes_changed_at_random_break_nothing(seed: int) -> None:
    rng = random.Random(seed)
    valid = seeds()
    for decoder, body, length in valid:
        assert decoder.decode(body, length)
    refused = 0
    for _ in range(ROUNDS // 4):
        decoder, body, length = rng.choice(valid)
        changed = body
        for _ in range(rng.choice((1, 1, 2, 5))):
            changed = change_bytes(rng, changed, rng.choice(valid)[1])
        if length and rng.random() < 0.5:
            # As a client would that really means it: the header is right, and what is wrong lies deeper.
            length += len(changed) - len(body)
        header = None if length is None else str(length).encode()
        refused += attempt(decoder, changed, header) is None
    assert ROUNDS / 40 < refused < ROUNDS / 4, "mutations must be neither all refused nor all accepted"
