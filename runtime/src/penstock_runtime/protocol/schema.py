"""What a model takes and gives, in the protocol's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Datatypes with their numpy type. FP16 and BF16 travel in binary form only.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

_NUMBER = frozenset({int, float})
_JSON_TYPES: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
    "FP32": _NUMBER,
    "FP64": _NUMBER,
} | {name: frozenset({int}) for name in NUMPY_TYPES if "INT" in name}

JSON_DATATYPES = frozenset(_JSON_TYPES)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, V2 datatype and shape (-1 = any size; None = any rank)."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of its elements."""
        return NUMPY_TYPES[self.datatype]

    @property
    def json_types(self) -> frozenset[type]:
        """The Python types a JSON element may have; empty where JSON cannot carry the datatype."""
        return _JSON_TYPES.get(self.datatype, frozenset())

    def describe(self) -> dict[str, Any]:
        """Return it as model metadata shows it; any rank is shown as [-1]."""
        shape = [-1] if self.shape is None else list(self.shape)
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """All inputs and outputs of a model, in its own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def describe(self, name: str, version: str, platform: str) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        return {
            "name": name,
            "versions": [version],
            "platform": platform,
            "inputs": [spec.describe() for spec in self.inputs],
            "outputs": [spec.describe() for spec in self.outputs],
        }
