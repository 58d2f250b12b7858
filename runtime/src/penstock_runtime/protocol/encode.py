"""Inference responses in JSON, with binary tensors behind it where they were asked for; errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from penstock_runtime.protocol.binary_data import write_binary
from penstock_runtime.protocol.errors import InferenceFailed

Output = tuple[str, str, np.ndarray[Any, Any]]


def encode_response(
    model: str,
    version: str,
    request_id: str | None,
    outputs: Iterable[Output],
    binary: frozenset[str] = frozenset(),
) -> tuple[bytes, int | None]:
    """Return the response body, and the length of its JSON part if binary data follows it.

    `outputs` are (name, datatype, array); those named in `binary` are sent in binary form. JSON data is flat,
    row-major. NaN and infinity, which JSON lacks, become null. `id` is present exactly if `request_id` is
    given. Raises InferenceFailed if a BYTES output is no text that JSON can carry.
    """
    message: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id is not None:
        message["id"] = request_id
    if binary:
        return _encode_with_binary(message, outputs, binary)
    message["outputs"] = [_json_output(output) for output in outputs]
    return _dump(message), None


def _encode_with_binary(
    message: dict[str, Any], outputs: Iterable[Output], binary: frozenset[str]
) -> tuple[bytes, int]:
    described: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for output in outputs:
        name, datatype, array = output
        if name not in binary:
            described.append(_json_output(output))
            continue
        blob = write_binary(array, datatype)
        size = memoryview(blob).nbytes
        described.append({
            "name": name, "datatype": datatype, "shape": array.shape, "parameters": {"binary_data_size": size},
        })  # fmt: skip
        blobs.append(blob)
    message["outputs"] = described
    head = _dump(message)
    return b"".join((head, *blobs)), len(head)


def _json_output(output: Output) -> dict[str, Any]:
    name, datatype, array = output
    return {
        "name": name,
        "datatype": datatype,
        "shape": array.shape,
        "data": array.ravel().tolist() if datatype == "BYTES" else array.ravel(),
    }


def _dump(message: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        raise InferenceFailed("the model gave an output that JSON cannot carry") from None


def encode_error(message: str) -> bytes:
    """Return the protocol's only error body."""
    return orjson.dumps({"error": message})
