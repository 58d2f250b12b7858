"""Long lists of numbers in JSON, read without making a Python object of each.

simdjson (pysimdjson) parses into a tape of its own and copies its numbers into one array: half the time of a list of
Python's, and a third of what that takes when it is freed is counted. Whatever is unusual is left to the other reader,
which says what is wrong; so this one never has to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from threading import local
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from penstock_runtime.protocol.fit import MAX_DIMENSIONS
from penstock_runtime.protocol.schema import TensorSpec

if TYPE_CHECKING:
    import simdjson

# Below this the detour by Python objects is shorter.
LARGE_BYTES = 8 * 2**10
# A parser keeps some 14 times the largest text that it has read; beyond this one is made for the occasion.
_KEPT_BYTES = 2**20
# Looking up a key passes over those before it.
_MOST_KEYS = 32
# Nested lists shorter than this are as quickly read the other way.
_SHORT_ROW = 16
_parsers = local()


class Numbers(NamedTuple):
    """The elements of a list in a request, which have the shape and the datatype that the request says."""

    array: np.ndarray[Any, Any]


def parse_large(text: bytes, inputs: Mapping[str, TensorSpec]) -> dict[str, Any] | None:
    """Return the JSON object `text`, in which `data` of `inputs` are Numbers where they can be.

    None if there is no such list, or `text` is no JSON, or not what one expects; `text` must not be nested deeply.
    """
    try:
        return _read(_parser(len(text)).parse(text), text, inputs)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
        # Whatever simdjson does not like, or what is no number of the datatype.
        return None


def _parser(size: int) -> simdjson.Parser:
    # Loaded late: an idle server does without its memory.
    import simdjson

    if size > _KEPT_BYTES:
        return simdjson.Parser()
    parser: simdjson.Parser | None = getattr(_parsers, "parser", None)
    if parser is None:
        parser = _parsers.parser = simdjson.Parser()
    return parser


def _read(document: Any, text: bytes, inputs: Mapping[str, TensorSpec]) -> dict[str, Any] | None:
    message: dict[str, Any] = {}
    # Lists that may stand in `text`; if there are more, some element is a list, which would be read as its elements.
    lists = 0
    for key in _keys(document):
        value = document[key]
        if key != "inputs":
            message[key] = _plain(value)
            lists += key == "outputs" and type(message[key]) is list
            continue
        message[key] = entries = []
        lists += 1
        for item in value:
            entry, inner = _read_entry(item, inputs)
            entries.append(entry)
            lists += inner
    return message if text.count(b"[") == lists else None


def _keys(value: Any) -> Sequence[str]:
    keys = list(value.keys())
    # Of a key that is given twice the last one counts, and looking it up finds the first.
    if len(keys) > _MOST_KEYS or len(set(keys)) < len(keys):
        raise KeyError
    return keys


def _plain(value: Any) -> Any:
    """Return what `value` of simdjson's is in Python."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    return value.as_list() if hasattr(value, "as_list") else value


def _read_entry(item: Any, inputs: Mapping[str, TensorSpec]) -> tuple[dict[str, Any], int]:
    """Return an entry of `inputs`, and how many lists are in it."""
    keys = _keys(item)
    entry = {key: _plain(item[key]) for key in keys if key != "data"}
    shape = entry["shape"]
    if "data" not in keys:
        return entry, 1
    spec, data = inputs[entry["name"]], item["data"]
    # A list times a number is a list of that length.
    if not spec.json_types or len(shape) > MAX_DIMENSIONS or any(type(dim) is not int or dim < 0 for dim in shape):
        raise ValueError
    lists = _count_lists(data, shape)
    array = np.frombuffer(data.as_buffer(of_type=_CARRIERS[spec.dtype.kind]), _WIDE[spec.dtype.kind])
    entry["data"] = Numbers(_narrow(array, spec.dtype).reshape(shape))
    return entry, 1 + lists


_CARRIERS = {"f": "d", "i": "i", "u": "u"}
_WIDE = {"f": np.float64, "i": np.int64, "u": np.uint64}


def _narrow(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    if dtype.kind == "f":
        fits = np.isfinite(narrow).all()
    else:
        limits = np.iinfo(dtype)
        fits = not array.size or (limits.min <= array.min() and array.max() <= limits.max)
    if not fits:
        raise OverflowError
    return narrow


def _count_lists(data: Any, shape: Sequence[int]) -> int:
    """Return how many lists `data` is, which is flat or nested to `shape`; raises ValueError if it is neither."""
    count = math.prod(shape)
    if len(data) == count and not (count and hasattr(data[0], "as_list")):
        return 1
    if math.prod(shape[:-1]) * _SHORT_ROW > count:
        raise ValueError
    return _count_nested(data, shape)


def _count_nested(data: Any, shape: Sequence[int]) -> int:
    if len(data) != shape[0]:
        raise ValueError
    return 1 if len(shape) == 1 else 1 + sum(_count_nested(row, shape[1:]) for row in data)
