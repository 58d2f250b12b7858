"""Answers compared: numbers within a tolerance, all else exactly, and settings that say so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock_runtime.engine.closeness import Tolerance
from penstock_runtime.protocol.answer import Output
from penstock_runtime.protocol.encode import encode_response
from penstock_runtime.protocol.schema import ELEMENTS
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.settings import SettingsError
from penstock_runtime.server.shadow.compare import differing, read_answer
from penstock_runtime.server.shadow.setting import Shadowing, parse_shadowing

TO = Address("x", 80)
NAN, INF = math.nan, math.inf
USUAL = Tolerance(absolute=1e-6, relative=1e-3)
EXACT = Tolerance(0.0, 0.0)


def binary(values: Any) -> Output:
    """Return an output that came in binary form."""
    return Output(np.array(values), finite=False)


def same(ours: Any, theirs: Any, tolerance: Tolerance = USUAL, *, named: Tolerance | None = None) -> bool:
    """Return whether two outputs agree."""
    setting = Shadowing(TO, 1.0, tolerance, {"y": named} if named else {})
    return not differing({"y": binary(ours)}, {"y": binary(theirs)}, setting)


@pytest.mark.parametrize(
    ("ours", "theirs", "agree"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1000.0], [1000.9], True),
        ([1000.0], [1001.1], False),
        ([0.0], [1e-7], True),
        ([0.0], [1e-5], False),
        ([1.0, 2.0], [1.0, 2.1], False),
        ([1.0], [[1.0]], False),
        ([1.0], [1.0, 1.0], False),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([NAN], [1.0], False),
        ([1.0], [NAN], False),
        ([INF], [INF], True),
        ([INF], [-INF], False),
        ([INF], [1e308], False),
        ([1e308], [INF], False),
        ([1e308], [-1e308], False),
        (np.zeros((0, 3)), np.zeros((0, 3)), True),
        ([7], [7], True),
        ([7], [8], False),
        ([2**62], [2**62 + 1], False),
        ([True, False], [True, False], True),
        ([True], [False], False),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), True),
        (np.array(["a"], object), np.array(["A"], object), False),
        (np.array(["7"], object), [7], False),
        ([7], [7.0], True),
        (np.array([0.1], np.float32), np.array([0.1]), True),
        (np.array([0.1], np.float16), np.array([0.1], np.float32), True),
    ],
)
def test_what_agrees(ours: Any, theirs: Any, agree: bool) -> None:
    assert same(ours, theirs) is agree


def test_a_tolerance_by_name_is_for_any_numbers_and_for_that_output_alone() -> None:
    assert same([100], [103], named=Tolerance(absolute=3))
    assert not same([100], [104], named=Tolerance(absolute=3))
    assert same([100.0], [110.0], named=Tolerance(relative=0.1))
    assert not same([1.0], [1.0005], named=EXACT), "a named one replaces the usual one"
    setting = Shadowing(TO, 1.0, EXACT, {"other": Tolerance(absolute=10)})
    assert differing({"y": binary([1.0])}, {"y": binary([2.0])}, setting) == ["y"]


def test_an_output_that_is_missing_differs_and_one_more_does_not() -> None:
    here = binary([1.0])
    setting = Shadowing(TO, 1.0)
    assert differing({"a": here, "b": here}, {"a": here}, setting) == ["b"]
    assert differing({"a": here}, dict.fromkeys("abc", here), setting) == []


# JSON cannot carry FP16.
@pytest.mark.parametrize(
    ("datatype", "binary"),
    [(name, binary) for name in ELEMENTS for binary in (True, False) if binary or name != "FP16"],
)
@given(st.data())
def test_what_this_server_answers_agrees_with_itself(datatype: str, binary: bool, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        texts = st.text(st.characters(codec="utf-8"), max_size=5)
        array = data.draw(arrays.arrays(np.object_, shape, elements=texts, fill=st.nothing()))
    else:
        array = data.draw(arrays.arrays(ELEMENTS[datatype].dtype, shape))
    outputs = [("first", datatype, array), ("second", datatype, array)]
    body, length = encode_response("m", "1", None, outputs, frozenset({"first", "second"} if binary else ()))
    theirs = read_answer(body, length)
    # JSON does not tell apart what is no number; binary does.
    here = dict.fromkeys(("first", "second"), Output(array, finite=False))
    setting = Shadowing(TO, 1.0, EXACT)
    assert differing(here, theirs, setting) == differing(theirs, here, setting) == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"outputs":1}', b'{"outputs":[1]}', b'{"outputs":[{"name":"y"}]}',
        b'{"outputs":[{"name":"y","datatype":"FP99","shape":[1],"data":[1]}]}',
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1]}]}',
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":[-1],"data":[1]}]}',
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":"1","data":{}}]}',
        b'{"outputs":[{"name":"y","datatype":"INT8","shape":[1],"data":[1000]}]}',
        b'{"outputs":[{"name":"y","datatype":"INT64","shape":[1],"data":[null]}]}',
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}',
        b'{"outputs":[{"name":["y"],"datatype":"FP32","shape":[1e999],"data":[1]}]}',
        b'{"outputs":[{"name":"y","datatype":["FP32"],"shape":[1],"data":[1]}]}',
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1],"parameters":7}]}',
        b'{"outputs":[]}surplus',
        b"[" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_answer(body, None)


def test_a_header_length_beyond_the_body_is_no_answer() -> None:
    with pytest.raises(ValueError):
        read_answer(b'{"outputs":[]}', 1000)


@pytest.mark.parametrize(
    ("spec", "setting"),
    [
        ({}, None),
        ({"to": "http://x", "fraction": 0.1}, Shadowing(TO, 0.1)),
        ({"to": "http://x", "to_grpc": "x:9000", "fraction": 1, "tolerance": {}},
         Shadowing(TO, 1.0, Tolerance(), to_grpc=Address("x", 9000))),
        ({"to": "http://x", "fraction": 1, "tolerance": {"relative": 1},
          "tolerances": {"y": {"absolute": 0.5}, "z": {}}},
         Shadowing(TO, 1.0, Tolerance(relative=1.0), {"y": Tolerance(0.5), "z": Tolerance()})),
    ],
)  # fmt: skip
def test_settings_are_read_and_shown_as_they_are_told(spec: dict[str, Any], setting: Shadowing | None) -> None:
    assert parse_shadowing(spec) == setting
    if setting is not None:
        assert parse_shadowing(setting.describe()) == setting


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to": "https://x"}, "https is not supported"),
        ({"to": None, "to_grpc": "x:9000"}, "'to' must be a URL such as"),
        ({"to_grpc": "http://x:9000"}, "'to_grpc' must be a host and a port such as"),
        ({"fraction": 10}, "'fraction' is 10, which is not from 0 to 1"),
        ({"fraction": None}, "'fraction' must be a number from 0 to 1"),
        ({"share": 0.1}, "unknown key 'share'; there are to, to_grpc, fraction, tolerance, tolerances"),
        ({"tolerance": 0.1}, "'tolerance' must be an object such as"),
        ({"tolerance": {"abs": 1}}, "'tolerance' has the unknown key 'abs'"),
        ({"tolerance": {"absolute": -1}}, "'tolerance': 'absolute' must be a number >= 0"),
        ({"tolerance": {"absolute": math.inf}}, "'tolerance': 'absolute' must be a number >= 0"),
        ({"tolerance": {"absolute": math.nan}}, "'tolerance': 'absolute' must be a number >= 0"),
        ({"tolerance": {"relative": True}}, "'tolerance': 'relative' must be a number >= 0"),
        ({"tolerances": []}, "'tolerances' must be an object"),
        ({"tolerances": {"y": {"relative": "x"}}}, "'tolerances' of 'y': 'relative' must be a number >= 0"),
    ],
)
def test_what_is_no_setting_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_shadowing({"to": "http://x", "fraction": 0.1, **change})
    assert message in str(caught.value)
