"""Long lists of numbers are read in one go, and are checked like short ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import ELEMENTS, ModelSchema, TensorSpec
from tests.unit.runtime.process import tensor

NUMBERS = [kind for kind, element in ELEMENTS.items() if element.code]
finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**64 - 1)
COUNTS = [1, 63, 64, 65, 1000]


def decode(datatype: str, values: list[Any], **more: object) -> np.ndarray[Any, Any]:
    schema = ModelSchema((TensorSpec("v", datatype, (-1,)),), ())
    message = {"inputs": [tensor("v", datatype, [len(values)], values)], **more}
    return Decoder(schema).decode(json.dumps(message).encode()).inputs["v"]


def fits(datatype: str, value: object) -> bool:
    if type(value) is int and "INT" in datatype:
        limits = np.iinfo(ELEMENTS[datatype].dtype)
        return limits.min <= value <= limits.max
    return type(value) in (int, float) and (datatype == "FP64" or (datatype == "FP32" and value != 1e300))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize("value", [True, False, None, "1", [1], {"a": 1}, 1e300, 0.5, -(2**63), 2**64 - 1])
def test_one_wrong_value_is_found_wherever_it_is(datatype: str, count: int, value: Any) -> None:
    for at in {0, count // 2, count - 1}:
        values: list[Any] = [1] * count
        values[at] = value
        if fits(datatype, value):
            assert decode(datatype, values)[at] == ELEMENTS[datatype].dtype.type(value)
        else:
            with pytest.raises(InvalidRequest, match=r"cannot be an element|out of the range|does not have the shape"):
                decode(datatype, values)


@pytest.mark.parametrize("noise", ["true", "us", "s" * 200, "u" * 200, "falsetrue"])
def test_letters_elsewhere_in_the_request_neither_hide_a_boolean_nor_make_one(noise: str) -> None:
    good = [0.5] * 100
    assert decode("FP32", good, note=noise, **{noise: True}).tolist() == good
    for bad in ([*good, True], [False, *good]):
        with pytest.raises(InvalidRequest, match="a boolean cannot be"):
            decode("FP32", bad, note=noise)


@given(st.sampled_from(["FP32", "FP64"]), st.lists(finite | integers, max_size=100))
def test_floats_are_what_numpy_makes_of_them(datatype: str, values: list[Any]) -> None:
    dtype = ELEMENTS[datatype].dtype
    try:
        with np.errstate(over="raise"):
            expected = np.array([float(value) for value in values], dtype)
    except FloatingPointError:
        with pytest.raises(InvalidRequest, match="out of the range"):
            decode(datatype, values)
        return
    assert decode(datatype, values).tobytes() == expected.tobytes()


@given(st.sampled_from([kind for kind in NUMBERS if "INT" in kind]), st.lists(integers, max_size=100))
def test_integers_are_exact_or_refused(datatype: str, values: list[int]) -> None:
    limits = np.iinfo(ELEMENTS[datatype].dtype)
    if all(limits.min <= value <= limits.max for value in values):
        assert decode(datatype, values).tolist() == values
    else:
        with pytest.raises(InvalidRequest, match="out of the range"):
            decode(datatype, values)
