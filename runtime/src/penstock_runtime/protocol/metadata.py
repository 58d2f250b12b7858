"""Model metadata read back, as any server of the protocol gives it."""

from __future__ import annotations

from typing import Any

import orjson

from penstock_runtime.protocol.schema import ELEMENTS, ModelSchema, TensorSpec

_MOST_DIMENSIONS = 64


def read_metadata(body: bytes) -> ModelSchema:
    """Return the schema in a server's model metadata; raises ValueError saying what is missing or unknown.

    Outputs of a datatype that is unknown here (BF16) are left out: they need not be asked for by name.
    """
    message = orjson.loads(body)
    if not isinstance(message, dict):
        raise ValueError("the metadata are no JSON object")
    inputs = [_read(entry) for entry in _listed(message, "inputs")]
    for name, datatype, _ in inputs:
        if datatype not in ELEMENTS:
            raise ValueError(f"input '{name}' is of the datatype '{datatype}', of which no data can be made")
    outputs = [_read(entry) for entry in _listed(message, "outputs")]
    return ModelSchema(
        tuple(TensorSpec(*each) for each in inputs),
        tuple(TensorSpec(*each) for each in outputs if each[1] in ELEMENTS),
    )


def _listed(message: dict[str, Any], key: str) -> list[Any]:
    entries = message.get(key)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ValueError(f"the metadata's {key} are no list")
    return entries


def _read(entry: object) -> tuple[str, str, tuple[int, ...]]:
    fields = entry if isinstance(entry, dict) else {}
    name, datatype, shape = (fields.get(key) for key in ("name", "datatype", "shape"))
    named = isinstance(name, str) and isinstance(datatype, str)
    if not named or not isinstance(shape, list) or not _is_shape(shape):
        raise ValueError("the metadata have a tensor without name, datatype or a shape of whole numbers")
    return str(name), str(datatype), tuple(shape)


def _is_shape(dims: list[Any]) -> bool:
    return len(dims) <= _MOST_DIMENSIONS and all(type(dim) is int and dim >= -1 for dim in dims)
