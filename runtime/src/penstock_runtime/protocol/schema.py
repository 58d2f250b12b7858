"""What a model takes and gives, in the protocol's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Element(NamedTuple):
    """How one element of a datatype is held.

    `json_types`: the Python types it may have in JSON, none where JSON cannot carry it. `code`: its letter in
    `struct`, for numbers. Binary tensors are little-endian, as is every machine that ONNX Runtime runs on.
    """

    dtype: np.dtype[Any]
    json_types: frozenset[type]
    code: str


_NUMBER = frozenset({int, float})
_INTEGER = frozenset({int})

ELEMENTS: dict[str, Element] = {
    "BOOL": Element(np.dtype(np.bool_), frozenset({bool}), ""),
    "BYTES": Element(np.dtype(np.object_), frozenset({str}), ""),
    "FP16": Element(np.dtype(np.float16), frozenset(), ""),
    "FP32": Element(np.dtype(np.float32), _NUMBER, "f"),
    "FP64": Element(np.dtype(np.float64), _NUMBER, "d"),
    "INT8": Element(np.dtype(np.int8), _INTEGER, "b"),
    "INT16": Element(np.dtype(np.int16), _INTEGER, "h"),
    "INT32": Element(np.dtype(np.int32), _INTEGER, "i"),
    "INT64": Element(np.dtype(np.int64), _INTEGER, "q"),
    "UINT8": Element(np.dtype(np.uint8), _INTEGER, "B"),
    "UINT16": Element(np.dtype(np.uint16), _INTEGER, "H"),
    "UINT32": Element(np.dtype(np.uint32), _INTEGER, "I"),
    "UINT64": Element(np.dtype(np.uint64), _INTEGER, "Q"),
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, V2 datatype and shape (-1 = any size; None = any rank)."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None
    element: Element = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look up how its elements are held."""
        object.__setattr__(self, "element", ELEMENTS[self.datatype])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of its elements."""
        return self.element.dtype

    @property
    def json_types(self) -> frozenset[type]:
        """The Python types a JSON element may have; empty where JSON cannot carry the datatype."""
        return self.element.json_types

    def describe(self) -> dict[str, Any]:
        """Return it as model metadata shows it; any rank is shown as [-1]."""
        shape = [-1] if self.shape is None else list(self.shape)
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """All inputs and outputs of a model, in its own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def describe(self, name: str, versions: Sequence[str], platform: str) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        return {
            "name": name,
            "versions": list(versions),
            "platform": platform,
            "inputs": [spec.describe() for spec in self.inputs],
            "outputs": [spec.describe() for spec in self.outputs],
        }
