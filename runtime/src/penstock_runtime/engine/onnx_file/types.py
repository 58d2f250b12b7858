"""Types of values as an ONNX file has them, in ONNX Runtime's words."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_runtime.engine.onnx_file.wire import VARINT, Malformed, Wire, int32, int64, tag

# Field numbers are those of onnx.proto.
NAMES = {
    1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "double", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2", 27: "float6e2m3",
    28: "float6e3m2",
}  # fmt: skip
# Of an element in raw and external data; strings cannot be there.
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6,
}  # fmt: skip
MAX_NAME = 4096
MAX_DIMENSIONS = 64
_MAX_DEPTH = 16

Dimension = int | str | None


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output: its type such as "tensor(float)", and its shape if it is a tensor that tells one.

    A size is a number, the name of a symbolic one, or None.
    """

    name: str
    type: str
    shape: tuple[Dimension, ...] | None


_NAME, _TYPE = tag(1), tag(2)
_TENSOR, _SEQUENCE, _MAP, _OPAQUE, _SPARSE, _OPTIONAL = tag(1), tag(4), tag(5), tag(7), tag(8), tag(9)
_ELEMENT, _SHAPE = tag(1, VARINT), tag(2)
_ELEMENT_TYPE, _KEY, _MAP_VALUE = tag(1), tag(1, VARINT), tag(2)
_DIM, _SIZE, _SYMBOL = tag(1), tag(1, VARINT), tag(2)


def read_value(wire: Wire, start: int, end: int) -> Value:
    """Return the input or output described there; raises Malformed."""
    name, kind, shape = "", "", None
    for key, a, b in wire.fields(start, end):
        if key == _NAME:
            name = wire.text(a, b, MAX_NAME)
        elif key == _TYPE:
            kind, shape = _read_type(wire, a, b, 0)
    return Value(name, kind or "unknown", shape)


def _read_type(wire: Wire, start: int, end: int, depth: int) -> tuple[str, tuple[Dimension, ...] | None]:
    if depth > _MAX_DEPTH:
        raise Malformed("it has a type of too many levels")
    found, shape = "", None
    for key, a, b in wire.fields(start, end):
        if key in (_TENSOR, _SPARSE):
            element, shape = _read_tensor(wire, a, b)
            found = f"{'tensor' if key == _TENSOR else 'sparse_tensor'}({element})"
        elif key in (_SEQUENCE, _OPTIONAL):
            found = f"{'seq' if key == _SEQUENCE else 'optional'}({_read_element(wire, a, b, depth)})"
        elif key == _MAP:
            found = _read_map(wire, a, b, depth)
        elif key == _OPAQUE:
            found = "opaque()"
    return found, shape


def _read_tensor(wire: Wire, start: int, end: int) -> tuple[str, tuple[Dimension, ...] | None]:
    element, shape = 0, None
    for key, a, b in wire.fields(start, end):
        if key == _ELEMENT:
            element = int32(a)
        elif key == _SHAPE:
            shape = tuple(_read_dim(wire, c, d) for each, c, d in wire.fields(a, b) if each == _DIM)
            if len(shape) > MAX_DIMENSIONS:
                raise Malformed(f"it has a tensor of more than {MAX_DIMENSIONS} dimensions")
    return NAMES.get(element, f"type {element}"), shape


def _read_dim(wire: Wire, start: int, end: int) -> Dimension:
    found: Dimension = None
    for key, a, b in wire.fields(start, end):
        if key == _SIZE:
            found = int64(a)
        elif key == _SYMBOL:
            found = wire.text(a, b, MAX_NAME) or None
    return found


def _read_element(wire: Wire, start: int, end: int, depth: int) -> str:
    found = ""
    for key, a, b in wire.fields(start, end):
        if key == _ELEMENT_TYPE:
            found, _ = _read_type(wire, a, b, depth + 1)
    return found


def _read_map(wire: Wire, start: int, end: int, depth: int) -> str:
    element, value = 0, ""
    for key, a, b in wire.fields(start, end):
        if key == _KEY:
            element = int32(a)
        elif key == _MAP_VALUE:
            value, _ = _read_type(wire, a, b, depth + 1)
    return f"map({NAMES.get(element, f'type {element}')},{value})"
