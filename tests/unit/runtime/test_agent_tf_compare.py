"""Tensors of two of TensorFlow Serving's answers: numbers agree within a tolerance, all else exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock_runtime.server.agent.messages import MAX_ELEMENTS
from penstock_runtime.server.agent.shadow_calls import TensorFlowCopy
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.shadow.setting import Shadowing, parse_shadowing
from tests.unit.runtime.tf_grpc import pb, tensor_proto


def proto(dtype: int, shape: list[int], **elements: Any) -> Any:
    tensor = pb.TensorProto(dtype=dtype, **elements)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def content(array: np.ndarray[Any, Any], dtype: int) -> Any:
    return proto(dtype, list(array.shape), tensor_content=array.tobytes())


def differ(ours: dict[str, Any], theirs: dict[str, Any], **setting: Any) -> list[str]:
    """Return the outputs that differ."""
    answered, copied = (pb.PredictResponse(outputs=outputs).SerializeToString() for outputs in (ours, theirs))
    copy = TensorFlowCopy(Metrics("m", "r1"), "/", "predict", [], b"", answered)
    told = parse_shadowing({"to": "http://x", "fraction": 1, **setting})
    assert told is not None
    return copy.differing(Response(200, [], copied), told)


NUMBERS = np.array([[1.0, -2.5], [0.0, 7.0]])


@pytest.mark.parametrize(
    ("dtype", "field", "kind"),
    [(1, "float_val", np.float32), (2, "double_val", np.float64), (19, "half_val", np.float16)],
)
def test_floating_point_numbers_agree_within_the_tolerance_in_either_form(
    dtype: int, field: str, kind: type[np.floating[Any]]
) -> None:
    array = NUMBERS.astype(kind)
    flat = array.ravel()
    given = flat.view(np.uint16).tolist() if dtype == 19 else flat.tolist()
    one = {"y": proto(dtype, [2, 2], **{field: given})}
    assert differ(one, {"y": content(array, dtype)}) == []
    off = {"y": content((NUMBERS * 1.01).astype(kind), dtype)}
    assert differ(one, off) == ["y"]
    assert differ(one, off, tolerance={"relative": 0.02}) == []
    assert differ(one, off, tolerances={"y": {"relative": 0.02}}) == []
    assert differ(one, off, tolerances={"z": {"relative": 0.02}}) == ["y"]


@pytest.mark.parametrize(
    ("dtype", "field", "kind"),
    [(3, "int_val", np.int32), (9, "int64_val", np.int64), (23, "uint64_val", np.uint64), (4, "int_val", np.uint8)],
)
def test_integers_agree_exactly_unless_named(dtype: int, field: str, kind: type[np.integer[Any]]) -> None:
    array = np.array([1, 100], kind)
    one = {"k": proto(dtype, [2], **{field: [1, 100]})}
    assert differ(one, {"k": content(array, dtype)}) == []
    off = {"k": proto(dtype, [2], **{field: [1, 101]})}
    assert differ(one, off, tolerance={"absolute": 5}) == ["k"]
    assert differ(one, off, tolerances={"k": {"absolute": 5}}) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "differing"),
    [
        (proto(10, [2], bool_val=[True, False]), content(np.array([True, False]), 10), False),
        (proto(10, [2], bool_val=[True, False]), proto(10, [2], bool_val=[True, True]), True),
        (proto(7, [1], string_val=[b"cat"]), proto(7, [1], string_val=[b"dog"]), True),
        # No text: an image, or a message.
        (proto(7, [1], string_val=[b"\xff"]), proto(7, [1], string_val=[b"\xff"]), False),
        (proto(7, [1], string_val=[b"\xff"]), proto(7, [1], string_val=[b"\xfe"]), True),
        (proto(1, [2], float_val=[np.nan, 1.0]), content(np.array([np.nan, 1.00001], np.float32), 1), False),
        (proto(1, [2], float_val=[np.nan, 1.0]), proto(1, [2], float_val=[0.0, 1.0]), True),
        (proto(1, [2], float_val=[1.0, 1.0]), proto(1, [1, 2], float_val=[1.0, 1.0]), True),
        # One element that stands for all.
        (proto(1, [3], float_val=[1.0]), proto(1, [3], float_val=[1.0, 1.0, 1.0]), False),
        # Types that are not known here: bfloat16 and complex.
        (proto(14, [1], half_val=[16256]), proto(14, [1], half_val=[16256]), False),
        (proto(14, [1], half_val=[16256]), proto(14, [1], half_val=[16257]), True),
        (proto(8, [1], scomplex_val=[1, 2]), proto(8, [1], scomplex_val=[1, 2]), False),
        (proto(8, [1], scomplex_val=[1, 2]), proto(8, [1], scomplex_val=[1, 3]), True),
        # Not whole.
        (proto(1, [2], float_val=[1.0, 2.0]), proto(1, [2], tensor_content=bytes(7)), True),
    ],
)
def test_everything_else_agrees_exactly(ours: Any, theirs: Any, differing: bool) -> None:
    assert differ({"y": ours}, {"y": theirs}, tolerances={"y": {"absolute": 0.001}}) == (["y"] if differing else [])


def test_what_is_missing_differs_and_what_is_more_does_not() -> None:
    one, two = tensor_proto(np.array([1])), tensor_proto(np.array([2]))
    assert differ({"a": one, "b": two}, {"a": one, "c": two}) == ["b"]
    assert differ({"a": one}, {"a": one, "c": two}) == []


def test_large_tensors_are_compared_if_they_say_all_their_elements() -> None:
    ones = np.ones((2, MAX_ELEMENTS), np.float32)
    assert differ({"y": content(ones, 1)}, {"y": content(ones * np.float32(1.00001), 1)}) == []
    assert differ({"y": content(ones, 1)}, {"y": content(ones * np.float32(1.01), 1)}) == ["y"]
    assert differ({"y": content(ones, 1)}, {"y": proto(1, [2, MAX_ELEMENTS], float_val=[1.0])}) == ["y"]


def test_an_answer_of_ours_that_is_none_cannot_be_compared() -> None:
    copy = TensorFlowCopy(Metrics("m", "r1"), "/", "predict", [], b"", b"\xff")
    with pytest.raises(ValueError, match="no PredictResponse"):
        copy.differing(Response(200, [], b""), Shadowing(Address("x", 80), 1.0))
