"""Whatever messages come, decoding ends in a request or in words on what is wrong; what fits comes back exactly."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.protocol.grpc.codec import MessageDecoder, encode, parse
from penstock_runtime.protocol.grpc.contents import FIELDS
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.server.grpc.codes import code_of
from tests.fuzz.changes import change_bytes, element
from tests.unit.runtime.binary import from_bytes
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.grpc_client import INFER, Client, iris_raw, iris_typed, raw_request, typed, typed_request
from tests.unit.runtime.process import SETOSA
from tests.unit.runtime.scrape import requests_by_outcome
from tests.unit.runtime.test_decode_fuzz import SCHEMA

TYPED_SCHEMA = ModelSchema(
    tuple(spec for spec in SCHEMA.inputs if spec.json_types), tuple(spec for spec in SCHEMA.outputs if spec.json_types)
)
RAW = MessageDecoder(SCHEMA)
TYPED = MessageDecoder(TYPED_SCHEMA)
ROUNDS = 20_000


def made(raw: bool, rows: int, seed: int) -> tuple[pb.ModelInferRequest, dict[str, list[Any]]]:
    """Return a request with values of every datatype in any order, and what is in it."""
    rng = random.Random(seed)
    specs = list((SCHEMA if raw else TYPED_SCHEMA).inputs)
    rng.shuffle(specs)
    shapes = {spec.name: [rows, 2] if spec.shape else rng.choice([[], [1], [2, 1, 2], [0, 3]]) for spec in specs}
    values = {
        spec.name: [element(rng, spec.datatype) for _ in range(int(np.prod(shapes[spec.name])))] for spec in specs
    }
    if raw:
        return raw_request({s.name: (s.datatype, shapes[s.name], values[s.name]) for s in specs}, id="a"), values
    return typed_request(*(typed(s.name, s.datatype, shapes[s.name], values[s.name]) for s in specs), id="a"), values


@settings(max_examples=150)
@given(st.booleans(), st.integers(0, 40), st.integers(0, 2**32))
def test_what_fits_comes_back_exactly(raw: bool, rows: int, seed: int) -> None:
    request, values = made(raw, rows, seed)
    schema = SCHEMA if raw else TYPED_SCHEMA
    decoded = (RAW if raw else TYPED).decode(parse(request.SerializeToString()))
    outputs = [(name, spec.datatype, decoded.inputs[spec.name])
               for name, spec in zip(decoded.outputs, schema.inputs, strict=True)]  # fmt: skip
    answer = pb.ModelInferResponse.FromString(encode("m", "1", decoded.id, outputs, bool(decoded.binary)))
    assert (answer.id, len(answer.raw_output_contents)) == ("a", len(outputs) if raw else 0)
    for index, output in enumerate(answer.outputs):
        name = output.name.removeprefix("out_")
        if raw:
            got = from_bytes(output.datatype, answer.raw_output_contents[index])
        else:
            got = list(getattr(output.contents, FIELDS[output.datatype]))
            got = [item.decode() for item in got] if output.datatype == "BYTES" else got
        assert got == values[name]
        assert list(map(type, got)) == list(map(type, values[name]))


def attempt(decoder: MessageDecoder, payload: bytes) -> InferRequest | None:
    """Do as the server does; anything but a request or INVALID_ARGUMENT fails the test."""
    try:
        return decoder.decode(parse(payload))
    except ProtocolError as error:
        if code_of(error) == StatusCode.INVALID_ARGUMENT and error.message:
            return None
        raise


@given(st.binary(max_size=300))
def test_no_bytes_at_all_break_it(payload: bytes) -> None:
    attempt(RAW, payload)
    attempt(TYPED, payload)


def seeds() -> list[tuple[MessageDecoder, bytes]]:
    found = []
    for raw, decoder in ((True, RAW), (False, TYPED)):
        for rows in (0, 1, 3):
            request, _ = made(raw, rows, rows)
            request.outputs.add(name="out_any")
            request.parameters["priority"].int64_param = 1
            found.append((decoder, request.SerializeToString()))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_bytes_changed_at_random_break_nothing(seed: int) -> None:
    rng = random.Random(seed)
    valid = seeds()
    refused = 0
    for _ in range(ROUNDS // 4):
        decoder, payload = rng.choice(valid)
        for _ in range(rng.choice((1, 1, 2, 5))):
            payload = change_bytes(rng, payload, rng.choice(valid)[1]) if payload else payload
        refused += attempt(decoder, payload) is None
    assert ROUNDS / 40 < refused < ROUNDS / 4, "mutations must be neither all refused nor all accepted"


odd_text = st.sampled_from(["", "x", "FP32", "BYTES", "INT8", "FP16", "any", "out_FP32", "\0", "å" * 100])


@settings(max_examples=300)
@given(st.booleans(), st.integers(0, 2**32), st.data())
def test_a_valid_request_with_one_thing_changed_is_answered_or_refused(
    raw: bool, seed: int, data: st.DataObject
) -> None:
    request, _ = made(raw, 2, seed)
    entry = request.inputs[data.draw(st.integers(0, len(request.inputs) - 1))]
    match data.draw(st.integers(0, 8)):
        case 0:
            entry.name = data.draw(odd_text)
        case 1:
            entry.datatype = data.draw(odd_text)
        case 2:
            entry.shape[:] = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
        case 3:
            field = data.draw(st.sampled_from(sorted(set(FIELDS.values()))))
            getattr(entry.contents, field).append(b"\xff" if field == "bytes_contents" else 1)
        case 4:
            request.inputs.add().CopyFrom(entry)
        case 5:
            request.outputs.add(name=data.draw(odd_text))
        case 6:
            request.raw_input_contents.append(data.draw(st.binary(max_size=20)))
        case 7 if raw:
            request.raw_input_contents[0] = data.draw(st.binary(max_size=40))
        case _:
            del request.inputs[0]
    attempt(RAW if raw else TYPED, request.SerializeToString())


def test_a_server_outlives_messages_of_every_kind(start_server: Start) -> None:
    server = start_server("iris").ready()
    rng = random.Random(0)
    valid = [iris_raw(SETOSA, id="a").SerializeToString(), iris_typed(SETOSA, SETOSA).SerializeToString()]
    calls = {StatusCode.OK: 0, StatusCode.INVALID_ARGUMENT: 0, StatusCode.NOT_FOUND: 0}
    with Client(server.grpc_port) as client:
        for _ in range(500):
            payload = change_bytes(rng, rng.choice(valid), rng.choice(valid))
            calls[client.call(INFER, payload, pb.ModelInferResponse).code] += 1
        assert client.infer(iris_raw(SETOSA)).code == StatusCode.OK
    assert min(calls.values()) > 0
    counted = requests_by_outcome(server)
    assert counted["ok"] == calls[StatusCode.OK] + 1
    assert counted["server_error"] == counted["rejected"] == counted["timeout"] == 0
