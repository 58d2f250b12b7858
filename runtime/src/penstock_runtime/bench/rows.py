"""What is sent: zeros of the model's own schema, or rows of a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from penstock_runtime.bench.errors import BenchError
from penstock_runtime.protocol.fit import MAX_ELEMENTS
from penstock_runtime.protocol.request import encode_request
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.protocol.synthetic import synthetic_request

MAX_FILE_BYTES = 256 * 2**20

Payload = tuple[bytes, int | None]
"""A body, and the length of its JSON if binary data follow it."""


def synthetic_payloads(schema: ModelSchema, *, binary: bool) -> list[Payload]:
    """Return one request of one row of zeros; raises BenchError if the schema is not enough to make it."""
    if not schema.inputs:
        raise BenchError("the server tells no inputs of the model; give a request with --row-file")
    for spec in schema.inputs:
        if math.prod(abs(dim) for dim in spec.shape or ()) > MAX_ELEMENTS:
            raise BenchError(f"input '{spec.name}' has more than {MAX_ELEMENTS} elements a row")
    return [synthetic_request(schema, binary=binary)]


def read_payloads(path: Path, schema: ModelSchema, *, binary: bool) -> list[Payload]:
    """Return the requests in a file: a JSON document, or one a line; raises BenchError.

    A document is a request of the protocol, an object of values by input, or the values of the only input; values
    may lack the first dimension, that of the rows.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BenchError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from None
    return [_payload(document, where, schema, binary) for where, document in _documents(path, content)]


def _documents(path: Path, content: bytes) -> list[tuple[str, Any]]:
    try:
        return [(str(path), orjson.loads(content))]
    except orjson.JSONDecodeError as whole:
        lines = [(f"{path} line {number}", line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise BenchError(f"{path} is no JSON: {whole}") from None
    found = []
    for where, line in lines:
        try:
            found.append((where, orjson.loads(line)))
        except orjson.JSONDecodeError as error:
            raise BenchError(f"{where} is no JSON: {error}") from None
    return found


def _payload(document: Any, where: str, schema: ModelSchema, binary: bool) -> Payload:
    if isinstance(document, dict) and isinstance(document.get("inputs"), list):
        if not binary:
            return orjson.dumps(document), None
        try:
            values = {entry["name"]: (entry["data"], entry["shape"]) for entry in document["inputs"]}
        except (LookupError, TypeError):
            raise BenchError(f"{where}: an input without name, shape or data cannot be made binary") from None
    else:
        if not isinstance(document, dict):
            if len(schema.inputs) != 1:
                raise BenchError(
                    f"{where}: the model has {len(schema.inputs)} inputs; give an object of values by name"
                )
            document = {schema.inputs[0].name: document}
        values = {name: (value, None) for name, value in document.items()}
    wanted = {spec.name: spec for spec in schema.inputs}
    unknown = sorted(values.keys() - wanted.keys())
    if unknown:
        raise BenchError(f"{where}: the model has no input '{unknown[0]}'; it has {', '.join(wanted) or 'none'}")
    arrays = [(wanted[name], _array(wanted[name], data, shape, where)) for name, (data, shape) in values.items()]
    return encode_request(arrays, schema.outputs, binary=binary)


def _array(spec: TensorSpec, data: Any, shape: Any, where: str) -> np.ndarray[Any, Any]:
    try:
        array = np.array(data, spec.dtype)
        return array.reshape(_shape(spec, array) if shape is None else shape)
    except (ValueError, TypeError, OverflowError):
        raise BenchError(f"{where}: the values of input '{spec.name}' are no {spec.datatype} of the shape "
                         f"{shape or list(spec.shape or ())}") from None  # fmt: skip


def _shape(spec: TensorSpec, array: np.ndarray[Any, Any]) -> list[int]:
    """Return the shape that is meant: with a row's dimension if that is all that is missing, or of a flat row."""
    dims = list(spec.shape or ())
    if array.ndim == len(dims):
        return list(array.shape)
    if array.ndim == len(dims) - 1:
        return [1, *array.shape]
    fixed: list[int] = [dim for dim in dims if dim != -1]
    if array.ndim == 1 and len(fixed) == len(dims) - 1 and dims[0] == -1 and 0 not in fixed:
        return [-1, *fixed]
    raise ValueError
