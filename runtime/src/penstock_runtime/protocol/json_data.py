"""Tensors in JSON: a list, nested to the shape or flat in row-major order, and never a silent conversion."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import Element, TensorSpec
from penstock_runtime.protocol.wording import quote

_JSON_NAMES = {
    bool: "a boolean", str: "a string", int: "an integer", float: "a number with a fraction or exponent",
    type(None): "null", list: "a list", dict: "an object",
}  # fmt: skip

# Up to here looking at each element's type costs less than searching the text.
_FEW = 64
_MOST_HITS = 64


def read_json_data(data: object, shape: list[int], spec: TensorSpec, text: bytes) -> np.ndarray[Any, Any]:
    """Return the tensor that `data` is; `text` is the JSON it was parsed from. Raises InvalidRequest."""
    element = spec.element
    if not element.json_types:
        raise InvalidRequest(
            f"input {quote(spec.name)} is {spec.datatype}, which JSON cannot carry; send it as binary data"
        )
    if type(data) is not list:
        raise InvalidRequest(f"input {quote(spec.name)}: 'data' must be a list")
    flat = _flatten(data, shape, spec)
    if not element.code:
        _check_types(flat, spec, element)
        return np.array(flat, element.dtype).reshape(shape)
    # struct takes numbers, and integers only for integers, within the range; it is far quicker than numpy
    # on a list. The one thing it would convert silently is a boolean.
    if len(flat) <= _FEW or _may_hold_booleans(text):
        _check_types(flat, spec, element)
    try:
        packed = _packer(len(flat), element.code)(*flat)
    except (struct.error, OverflowError):
        _check_types(flat, spec, element)
        raise InvalidRequest(f"input {quote(spec.name)}: a value is out of the range of {spec.datatype}") from None
    return np.ndarray(shape, element.dtype, packed)


@lru_cache(256)
def _packer(count: int, code: str) -> Callable[..., bytes]:
    return struct.Struct(f"<{count}{code}").pack


def _check_types(flat: list[Any], spec: TensorSpec, element: Element) -> None:
    if not element.json_types.issuperset(map(type, flat)):
        wrong = next(item for item in flat if type(item) not in element.json_types)
        raise InvalidRequest(
            f"input {quote(spec.name)}: {_JSON_NAMES[type(wrong)]} cannot be an element of {spec.datatype}"
        )


def _may_hold_booleans(text: bytes) -> bool:
    """Tell whether `true` or `false` stands anywhere in `text`; True too where that takes long to tell.

    Searching for one letter passes over digits at the speed of memory, and u and s are in few keys.
    """
    for letter, token, before in ((b"u", b"true", 2), (b"s", b"false", 3)):
        at = -1
        for _ in range(_MOST_HITS):
            at = text.find(letter, at + 1)
            if at < 0:
                break
            if text.startswith(token, max(0, at - before)):
                return True
        else:
            return True
    return False


def _flatten(data: list[Any], shape: list[int], spec: TensorSpec) -> list[Any]:
    if data and type(data[0]) is list:
        if len(data) != (shape[0] if shape else -1):
            raise _ragged(spec, shape)
        for dim in shape[1:]:
            if set(map(type, data)) != {list} or set(map(len, data)) != {dim}:
                raise _ragged(spec, shape)
            data = list(chain.from_iterable(data))
    count = math.prod(shape)
    if len(data) != count:
        raise InvalidRequest(f"input {quote(spec.name)}: {len(data)} elements in 'data', shape {shape} needs {count}")
    return data


def _ragged(spec: TensorSpec, shape: list[int]) -> InvalidRequest:
    return InvalidRequest(f"input {quote(spec.name)}: nested 'data' does not have the shape {shape}")
