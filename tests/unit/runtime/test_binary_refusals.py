"""What is wrong with a binary request is said, and never costs more than an answer of 400."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_runtime.protocol.binary_data import read_header_length
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from tests.unit.runtime.binary import LENGTH, blob_input, request, send, to_bytes
from tests.unit.runtime.process import SETOSA, Server, iris_request, tensor

SCHEMA = ModelSchema(
    inputs=(TensorSpec("x", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,)), TensorSpec("b", "BOOL", (-1,))),
    outputs=(TensorSpec("y", "FP32", (-1,)), TensorSpec("h", "FP16", (-1,))),
)
BINARY = {"binary_data_output": True}
X, T, B = to_bytes("FP32", [1, 2, 3, 4]), to_bytes("BYTES", ["ab", ""]), b"\0\1"


def refused(body: bytes, length: int | None) -> str:
    with pytest.raises(InvalidRequest) as error:
        Decoder(SCHEMA).decode(body, length)
    assert error.value.status == 400
    return error.value.message


def inputs(x: object = 16, t: object = 10, b: object = 2) -> list[dict[str, Any]]:
    return [blob_input("x", "FP32", [2, 2], x), blob_input("t", "BYTES", [2], t), blob_input("b", "BOOL", [2], b)]


def test_the_request_that_the_others_are_made_from_is_fine() -> None:
    body, length = request(inputs(), X, T, B, parameters=BINARY)
    decoded = Decoder(SCHEMA).decode(body, length)
    assert decoded.inputs["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert decoded.inputs["t"].tolist() == ["ab", ""]
    assert decoded.inputs["b"].tolist() == [False, True]
    assert decoded.binary == {"y", "h"}


@pytest.mark.parametrize("value", [b"-1", b"+5", b"1.0", b"1e2", b"", b" 5", b"x", b"0x10", "²".encode(), b"9" * 5000])
def test_a_header_that_is_no_length(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="must be an integer >= 0"):
        read_header_length(value)


@pytest.mark.parametrize("value", ["-1", "1.5", "abc", "100000", "9" * 20, "9" * 400])
def test_a_bad_header_is_a_400(iris: Server, value: str) -> None:
    reply = send(iris, request([tensor("X", "FP32", [1, 4], SETOSA)])[0], value)
    assert reply.status == 400
    assert LENGTH in reply.json["error"]


def test_a_header_beyond_the_body() -> None:
    body, _ = request(inputs(), X, T, B)
    assert refused(body, len(body) + 1).endswith(f"and the body ends after {len(body)} bytes")


def test_a_header_that_cuts_the_json_short_or_takes_in_binary_data() -> None:
    body, length = request(inputs(), X, T, B, parameters=BINARY)
    assert "not valid JSON" in refused(body, length - 1)
    assert "not valid JSON" in refused(body, length + 1)


SIZES: list[tuple[list[dict[str, Any]], tuple[bytes, ...], str]] = [
    (inputs(), (X, T), "input 'b': 2 bytes of binary data are announced, 2 of them are missing"),
    (inputs(), (X, T[:5]), "input 't': 10 bytes of binary data are announced, 5 of them are missing"),
    (inputs(), (X, T, B, b"surplus"), "the body has 7 bytes more than its JSON and its binary tensors take"),
    (inputs(x=12), (X[:12], T, B), "shape [2, 2] of FP32 takes 16 bytes, 'binary_data_size' is 12"),
    (inputs(x=0), (T, B), "shape [2, 2] of FP32 takes 16 bytes, 'binary_data_size' is 0"),
    (inputs(x=-1), (X, T, B), "'binary_data_size' must be an integer >= 0"),
    (inputs(x=True), (X, T, B), "'binary_data_size' must be an integer >= 0"),
    (inputs(x=16.0), (X, T, B), "'binary_data_size' must be an integer >= 0"),
    (inputs(x="16"), (X, T, B), "'binary_data_size' must be an integer >= 0"),
    (inputs(x=2**63), (X, T, B), f"{2**63} bytes of binary data are announced"),
    (inputs(b=1), (X, T, B[:1]), "shape [2] of BOOL takes 2 bytes, 'binary_data_size' is 1"),
]


@pytest.mark.parametrize(("entries", "blobs", "message"), SIZES)
def test_sizes_that_do_not_fit(entries: list[dict[str, Any]], blobs: tuple[bytes, ...], message: str) -> None:
    body, length = request(entries, *blobs, parameters=BINARY)
    assert message in refused(body, length)


def text_of(*lengths_and_bytes: tuple[int, bytes]) -> bytes:
    return b"".join(length.to_bytes(4, "little") + raw for length, raw in lengths_and_bytes)


TEXTS = [
    (b"", "does not hold the 2 BYTES elements"),
    (b"\0\0\0", "does not hold the 2 BYTES elements"),
    (text_of((2, b"ab")), "does not hold the 2 BYTES elements"),
    (text_of((2, b"ab")) + b"\0\0", "does not hold the 2 BYTES elements"),
    (text_of((1, b"a"), (1, b"b"), (1, b"c")), "does not hold the 2 BYTES elements"),
    (text_of((1, b"a"), (1, b"bc")), "does not hold the 2 BYTES elements"),
    (text_of((1, b"a"), (3, b"bc")), "element 1 of BYTES ends 1 bytes behind the tensor"),
    (text_of((2**32 - 1, b"abcd")), "element 0 of BYTES ends 4294967291 bytes behind the tensor"),
    (text_of((1, b"a"), (2, b"\xff\xfe")), "element 1 of BYTES is not UTF-8"),
]


@pytest.mark.parametrize(("blob", "message"), TEXTS)
def test_texts_that_do_not_fit(blob: bytes, message: str) -> None:
    body, length = request(inputs(t=len(blob)), X, blob, B, parameters=BINARY)
    assert message in refused(body, length)


def test_a_boolean_is_0_or_1() -> None:
    body, length = request(inputs(), X, T, b"\1\2", parameters=BINARY)
    assert "a byte of BOOL is neither 0 nor 1" in refused(body, length)


def test_data_twice_or_not_at_all() -> None:
    entries = inputs()
    entries[0]["data"] = [1, 2, 3, 4]
    assert "has both 'data' and 'binary_data_size'" in refused(*request(entries, X, T, B, parameters=BINARY))
    del entries[0]["data"], entries[0]["parameters"]
    assert "'data' must be a list" in refused(*request(entries, X, T, B, parameters=BINARY))


def test_binary_data_without_the_header_is_missing() -> None:
    body, _ = request(inputs(), parameters=BINARY)
    assert "16 of them are missing" in refused(body, None)
    body, _ = request(inputs(), X, T, B, parameters=BINARY)
    assert "not valid JSON" in refused(body, None)


@pytest.mark.parametrize("value", [1, 0, "true", 1.0])
def test_flags_are_true_or_false(iris: Server, value: object) -> None:
    of_request = iris.infer(iris_request(SETOSA, parameters={"binary_data_output": value}))
    assert (of_request.status, "'binary_data_output'" in of_request.json["error"]) == (400, True)
    wanted = [{"name": "label", "parameters": {"binary_data": value}}]
    of_output = iris.infer(iris_request(SETOSA, outputs=wanted))
    assert (of_output.status, "'binary_data'" in of_output.json["error"]) == (400, True)


HUGE = [[2**40], [0, 2**40], [2**63, 2**63], [0, 2**63, 2**63], [65536, 65536]]


@pytest.mark.parametrize("shape", HUGE)
def test_shapes_beyond_all_bounds_are_refused_before_anything_is_made_of_them(shape: list[int]) -> None:
    schema = ModelSchema((TensorSpec("v", "FP32", None),), ())
    for entry in (tensor("v", "FP32", shape, []), blob_input("v", "FP32", shape, 0)):
        with pytest.raises(InvalidRequest, match="beyond 67108864 elements"):
            Decoder(schema).decode(request([entry])[0])
