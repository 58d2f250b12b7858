"""Requests without JSON: the body is the only input's tensor, all outputs come back in binary form."""

from __future__ import annotations

import pytest

from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from tests.unit.runtime.binary import outputs, send, to_bytes
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, VIRGINICA, Server


def decoder(datatype: str, shape: tuple[int, ...] | None) -> Decoder:
    return Decoder(ModelSchema((TensorSpec("v", datatype, shape),), (TensorSpec("w", "FP16", (-1,)),)))


def test_a_row_of_numbers_is_all_it_takes(iris: Server) -> None:
    reply = send(iris, to_bytes("FP32", SETOSA), 0)
    found = outputs(reply)
    assert found["label"]["data"] == [0]
    assert found["probabilities"]["shape"] == [1, 3]
    assert iris.feedback([{"id": reply.headers["penstock-prediction-id"], "label": 0}]).json["accepted"] == 1


def test_the_only_variable_dimension_follows_from_the_size(iris: Server) -> None:
    assert outputs(send(iris, to_bytes("FP32", SETOSA + VIRGINICA), 0))["label"]["data"] == [0, 2]


def test_half_precision_needs_no_json(start_server: Start) -> None:
    found = outputs(send(start_server("half").ready(), to_bytes("FP16", [1.5]), 0))
    assert (found["y"]["data"], found["y"]["shape"]) == ([3.0], [1, 1])


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((2, 3), 24, (2, 3)), ((-1, 3), 24, (2, 3)), ((-1, -1), 24, (1, 6)), ((-1, 2, -1), 24, (1, 2, 3)), ((), 4, ()),
     ((-1, 3), 0, (0, 3))],
)  # fmt: skip
def test_shapes_that_can_be_told(shape: tuple[int, ...], size: int, expected: tuple[int, ...]) -> None:
    request = decoder("FP32", shape).decode(b"\0" * size, 0)
    assert request.inputs["v"].shape == expected
    assert request.binary == {"w"}
    assert request.id is None


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [((2, 3), 20, "takes 24 bytes"), ((-1, 3), 20, "no multiple of the 12"), ((-1, -1, -1), 24, "cannot be told"),
     ((3, -1, -1), 24, "cannot be told"), (None, 24, "cannot be told"), ((-1, 0), 4, "no multiple of the 0")],
)  # fmt: skip
def test_shapes_that_cannot(shape: tuple[int, ...] | None, size: int, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decoder("FP32", shape).decode(b"\0" * size, 0)


@pytest.mark.parametrize("shape", [(-1,), (1,), (-1, 1), ()])
def test_a_text_is_the_whole_body_without_a_length(shape: tuple[int, ...]) -> None:
    request = decoder("BYTES", shape).decode("grüße\0".encode(), 0)
    assert request.inputs["v"].ravel().tolist() == ["grüße\0"]
    assert request.inputs["v"].shape == tuple(1 if dim == -1 else dim for dim in shape)
    assert request.rows == 1


def test_a_text_that_is_none_and_a_model_that_takes_more_than_one() -> None:
    with pytest.raises(InvalidRequest, match="is not UTF-8"):
        decoder("BYTES", (-1,)).decode(b"\xff", 0)
    with pytest.raises(InvalidRequest, match=r"of shape \[1, 2\] takes 2"):
        decoder("BYTES", (-1, 2)).decode(b"a", 0)


def test_a_model_with_several_inputs_needs_json(echo: Server) -> None:
    reply = send(echo, b"", 0)
    assert (reply.status, "for models with one input" in reply.json["error"]) == (400, True)


def test_an_empty_body_is_an_empty_batch() -> None:
    request = decoder("FP32", (-1, 4)).decode(b"", 0)
    assert (request.inputs["v"].shape, request.rows) == ((0, 4), 0)
