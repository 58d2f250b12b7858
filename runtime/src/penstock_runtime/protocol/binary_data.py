"""Tensors in binary form: elements without padding, little-endian and row-major, behind the JSON.

A BYTES element is its length as a little-endian uint32, then the bytes. ONNX's strings are UTF-8, so other
bytes are refused.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import TensorSpec
from penstock_runtime.protocol.wording import quote

_LENGTH = struct.Struct("<I")


def read_header_length(value: bytes) -> int:
    """Return what the header Inference-Header-Content-Length says; raises InvalidRequest if no integer >= 0."""
    # Nothing longer is turned into a number: that can take very long, and no body is as long.
    if not value.isdigit() or len(value) > 20:
        raise InvalidRequest(
            "Inference-Header-Content-Length must be an integer >= 0: the length of the body's JSON part"
        )
    return int(value)


class Blobs:
    """The binary part of a body, from which tensors are taken one after the other."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes, start: int) -> None:
        """`start`: the first byte behind the JSON."""
        self._body = body
        self._at = start

    def take(self, size: object, shape: list[int], spec: TensorSpec) -> np.ndarray[Any, Any]:
        """Return the next tensor, of `size` bytes by its binary_data_size; raises InvalidRequest."""
        if type(size) is not int or size < 0:
            raise InvalidRequest(f"input {quote(spec.name)}: 'binary_data_size' must be an integer >= 0")
        start = self._at
        missing = size - (len(self._body) - start)
        if missing > 0:
            raise InvalidRequest(
                f"input {quote(spec.name)}: {size} bytes of binary data are announced, {missing} of them are missing"
            )
        self._at += size
        if spec.datatype == "BYTES":
            return _read_texts(self._body[start : self._at], shape, spec)
        return _read_fixed(self._body, start, size, shape, spec, f"'binary_data_size' is {size}")

    def finish(self) -> None:
        """Raise InvalidRequest if bytes are left over."""
        surplus = len(self._body) - self._at
        if surplus:
            raise InvalidRequest(f"the body has {surplus} bytes more than its JSON and its binary tensors take")


def read_tensor(blob: bytes, shape: list[int], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return the tensor whose binary form is `blob`, without copying numbers; raises InvalidRequest."""
    if spec.datatype == "BYTES":
        return _read_texts(blob, shape, spec)
    return _read_fixed(blob, 0, len(blob), shape, spec, f"there are {len(blob)} bytes")


def _read_fixed(
    body: bytes, start: int, size: int, shape: list[int], spec: TensorSpec, given: str
) -> np.ndarray[Any, Any]:
    dtype = spec.dtype
    count = math.prod(shape)
    if size != count * dtype.itemsize:
        raise InvalidRequest(
            f"input {quote(spec.name)}: shape {shape} of {spec.datatype} takes {count * dtype.itemsize} bytes, {given}"
        )
    if not size:
        return np.empty(shape, dtype)
    array: np.ndarray[Any, Any] = np.frombuffer(body, dtype, count, start)
    if not array.flags.aligned:
        # Compiled kernels may count on alignment, and the client chose where this tensor lies.
        array = array.copy()
    if spec.datatype == "BOOL" and array.view(np.uint8).max() > 1:
        raise InvalidRequest(f"input {quote(spec.name)}: a byte of BOOL is neither 0 nor 1")
    return array.reshape(shape)


def _read_texts(blob: bytes, shape: list[int], spec: TensorSpec) -> np.ndarray[Any, Any]:
    count = math.prod(shape)
    if len(blob) < count * _LENGTH.size:
        raise _wrong_count(spec, shape, count)
    texts: list[str] = []
    at = 0
    for index in range(count):
        end = at + _LENGTH.size
        if end > len(blob):
            raise _wrong_count(spec, shape, count)
        at = end + _LENGTH.unpack_from(blob, at)[0]
        if at > len(blob):
            raise InvalidRequest(
                f"input {quote(spec.name)}: element {index} of BYTES ends {at - len(blob)} bytes behind the tensor"
            )
        texts.append(read_text(blob[end:at], index, spec))
    if at != len(blob):
        raise _wrong_count(spec, shape, count)
    array = np.empty(count, np.object_)
    array[:] = texts
    return array.reshape(shape)


def read_text(raw: bytes, index: int, spec: TensorSpec) -> str:
    """Return a BYTES element as the text it must be; raises InvalidRequest."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"input {quote(spec.name)}: element {index} of BYTES is not UTF-8, as text for an ONNX model must be"
        ) from None


def _wrong_count(spec: TensorSpec, shape: list[int], count: int) -> InvalidRequest:
    return InvalidRequest(
        f"input {quote(spec.name)}: the binary data does not hold the {count} BYTES elements of shape {shape}; "
        "each is its length as a little-endian uint32, then the bytes"
    )


def write_binary(array: np.ndarray[Any, Any], datatype: str) -> bytes | memoryview:
    """Return the tensor's binary form."""
    if datatype != "BYTES":
        return array.ravel().data
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        raw = item if type(item) is bytes else str(item).encode()
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)
