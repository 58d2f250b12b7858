"""Tensors in an ONNX file: how many elements they claim, and where their data are."""

from __future__ import annotations

import math
from typing import NamedTuple

from penstock_runtime.engine.onnx_file.external_data import ExternalFiles, Refused
from penstock_runtime.engine.onnx_file.types import BITS, MAX_DIMENSIONS, MAX_NAME, NAMES
from penstock_runtime.engine.onnx_file.wire import FIXED32, FIXED64, VARINT, Malformed, Wire, int32, int64, run_of, tag

# Field numbers are those of onnx.proto.
_DIMS, _DIM, _TYPE, _NAME, _RAW = tag(1), tag(1, VARINT), tag(2, VARINT), tag(8), tag(9)
_EXTERNAL, _LOCATION = tag(13), tag(14, VARINT)
_KEY, _VALUE = tag(1), tag(2)
_VALUES, _INDICES, _SPARSE_DIMS, _SPARSE_DIM = tag(1), tag(2), tag(3), tag(3, VARINT)
# float_data, int32_data, int64_data, double_data, uint64_data, if they are not packed.
_RUNS = run_of(tag(4, FIXED32), tag(5, VARINT), tag(7, VARINT), tag(10, FIXED64), tag(11, VARINT))
_IN_FILE, _OUTSIDE = 0, 1
_MAX_VALUE = 4096
_MAX_ENTRIES = 64
# ONNX Runtime writes sparse tensors out: as FP32 that is 2 GB, the most that a file could hold of a dense one.
_MAX_DENSE_ELEMENTS = 2**29
_NO_SPAN = (0, 0)


class Tensor(NamedTuple):
    """A tensor's name, its elements, and where its external data are; `problem` tells why it cannot be loaded."""

    name: str
    elements: int
    location: str | None = None
    problem: str | None = None


class _Parts:
    """A tensor's fields as the file has them."""

    __slots__ = ("dims", "entries", "held", "kind", "name", "place", "raw")

    def __init__(self, wire: Wire, start: int, end: int) -> None:
        self.name = ""
        self.kind = self.place = self.raw = 0
        self.held = end - start
        self.dims: list[int] = []
        self.entries: list[tuple[int, int]] = []
        for key, a, b in wire.fields(start, end, _RUNS):
            if key == _DIMS:
                self.dims += wire.numbers(a, b, MAX_DIMENSIONS)
            elif key == _DIM:
                self.dims.append(int64(a))
            elif key == _TYPE:
                self.kind = int32(a)
            elif key == _NAME:
                self.name = wire.text(a, b, MAX_NAME)
            elif key == _RAW:
                self.raw = b - a
            elif key == _EXTERNAL:
                self.entries.append((a, b))
            elif key == _LOCATION:
                self.place = int32(a)
        _check_rank(self.dims)
        if len(self.entries) > _MAX_ENTRIES:
            raise Malformed(f"a tensor has more than {_MAX_ENTRIES} entries about external data")


def read_tensor(wire: Wire, start: int, end: int, files: ExternalFiles) -> Tensor:
    """Return the tensor described there; raises Malformed."""
    parts = _Parts(wire, start, end)
    name, kind = parts.name, parts.kind
    if parts.dims and min(parts.dims) < 0:
        return Tensor(name, 0, problem=f"has a negative size in its shape {parts.dims}")
    elements = math.prod(parts.dims)
    if parts.place == _OUTSIDE:
        return _external(wire, parts, elements, files)
    if parts.place != _IN_FILE:
        return Tensor(name, elements, problem=f"has its data in a place of unknown kind ({parts.place})")
    # An element of any other form than raw takes at least a byte, but for those that share one.
    bits = BITS.get(kind, 8) if parts.raw else min(BITS.get(kind, 8), 8)
    held = parts.raw or parts.held
    if elements * bits > held * 8:
        claim = f"claims {elements} elements of {NAMES.get(kind, f'type {kind}')}"
        return Tensor(name, elements, problem=f"{claim}, and the file holds {held} bytes for them")
    return Tensor(name, elements)


def _check_rank(dims: list[int]) -> None:
    if len(dims) > MAX_DIMENSIONS:
        raise Malformed(f"it has a tensor of more than {MAX_DIMENSIONS} dimensions")


def read_sparse(wire: Wire, start: int, end: int, files: ExternalFiles) -> tuple[Tensor, Tensor]:
    """Return the values and indices of the sparse tensor described there; raises Malformed."""
    parts: dict[int, Tensor] = {}
    dims: list[int] = []
    for key, a, b in wire.fields(start, end):
        if key in (_VALUES, _INDICES):
            # Protobuf would merge them into one that nobody has checked.
            if key in parts:
                raise Malformed("a sparse tensor has its values or indices twice")
            parts[key] = read_tensor(wire, a, b, files)
        elif key == _SPARSE_DIMS:
            dims += wire.numbers(a, b, MAX_DIMENSIONS)
        elif key == _SPARSE_DIM:
            dims.append(int64(a))
    values = parts.get(_VALUES, Tensor("", 0))
    _check_rank(dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) > _MAX_DENSE_ELEMENTS:
        values = values._replace(problem=f"is sparse, and its shape {dims} too large to be written out")
    return values, parts.get(_INDICES, Tensor("", 0))


def _external(wire: Wire, parts: _Parts, elements: int, files: ExternalFiles) -> Tensor:
    name, kind = parts.name, parts.kind
    told: dict[bytes, tuple[int, int]] = {}
    for start, end in parts.entries:
        spans = {key: (a, b) for key, a, b in wire.fields(start, end) if key in (_KEY, _VALUE)}
        a, b = spans.get(_KEY, _NO_SPAN)
        word = wire.data[a : min(b, a + _MAX_VALUE)]
        if word in told:
            return Tensor(name, elements, problem="has external data that are described twice")
        told[word] = spans.get(_VALUE, _NO_SPAN)
    location, offset, length = (
        # Bytes that are no UTF-8 stay what they are: what is checked must be what is opened.
        wire.data[a : min(b, a + _MAX_VALUE)].decode("utf-8", "surrogateescape")
        for a, b in (told.get(word, _NO_SPAN) for word in (b"location", b"offset", b"length"))
    )
    try:
        if kind not in BITS:
            raise Refused(f"the type {NAMES.get(kind, kind)} cannot lie in external data")
        files.check(location, offset, length, -(-elements * BITS[kind] // 8))
    except Refused as error:
        return Tensor(name, elements, problem=f"has external data at '{_shown(location)}': {error}")
    return Tensor(name, elements, location)


def _shown(location: str) -> str:
    return location[:200].encode("utf-8", "backslashreplace").decode()
