"""Tensors as typed contents: a list of elements in the one field that fits the datatype."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from penstock_runtime.protocol.binary_data import read_text
from penstock_runtime.protocol.errors import InferenceFailed, InvalidRequest
from penstock_runtime.protocol.grpc.inference_pb2 import InferTensorContents
from penstock_runtime.protocol.schema import TensorSpec
from penstock_runtime.protocol.wording import quote

# FP16 and BF16 have no field: they travel as raw contents only.
FIELDS = {
    "BOOL": "bool_contents", "BYTES": "bytes_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
}  # fmt: skip


class _Narrow(NamedTuple):
    """A datatype whose field holds wider integers: as those are read, and the bounds of its own."""

    wide: np.dtype[Any]
    least: int
    most: int


_NARROW = {
    name: _Narrow(np.dtype(wide), int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    for name, kind, wide in (
        ("INT8", np.int8, np.int32), ("INT16", np.int16, np.int32),
        ("UINT8", np.uint8, np.uint32), ("UINT16", np.uint16, np.uint32),
    )
}  # fmt: skip


def read_contents(contents: InferTensorContents, shape: list[int], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return the tensor that `contents` holds; raises InvalidRequest."""
    field = FIELDS.get(spec.datatype)
    if field is None:
        raise InvalidRequest(
            f"input {quote(spec.name)} is {spec.datatype}, which typed contents cannot carry; send it as raw contents"
        )
    values = getattr(contents, field)
    count = math.prod(shape)
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    if filled and filled != [field]:
        wrong = next(name for name in filled if name != field)
        raise InvalidRequest(
            f"input {quote(spec.name)}: elements of {spec.datatype} belong in '{field}', not '{wrong}'"
        )
    if len(values) != count:
        raise InvalidRequest(
            f"input {quote(spec.name)}: {len(values)} elements in '{field}', shape {shape} needs {count}"
        )
    if spec.datatype == "BYTES":
        return _texts(values, shape, spec)
    narrow = _NARROW.get(spec.datatype)
    if narrow is None:
        return np.array(values, spec.dtype).reshape(shape)
    wide = np.array(values, narrow.wide)
    if count and (wide.min() < narrow.least or wide.max() > narrow.most):
        raise InvalidRequest(f"input {quote(spec.name)}: a value is out of the range of {spec.datatype}")
    return wide.astype(spec.dtype).reshape(shape)


def _texts(values: Any, shape: list[int], spec: TensorSpec) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), np.object_)
    array[:] = [read_text(raw, index, spec) for index, raw in enumerate(values)]
    return array.reshape(shape)


def write_contents(contents: InferTensorContents, array: np.ndarray[Any, Any], datatype: str) -> None:
    """Put the elements of `array` into `contents`; raises InferenceFailed if a text is none."""
    flat = array.ravel().tolist()
    if datatype == "BYTES":
        flat = [_to_bytes(item) for item in flat]
    getattr(contents, FIELDS[datatype]).extend(flat)


def _to_bytes(item: object) -> bytes:
    try:
        return item if type(item) is bytes else str(item).encode()
    except UnicodeEncodeError:
        raise InferenceFailed("the model gave a text that UTF-8 cannot carry") from None
