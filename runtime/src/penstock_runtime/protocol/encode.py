"""Inference responses in JSON, with binary tensors behind it where they were asked for; errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from penstock_runtime.protocol.binary_data import write_binary
from penstock_runtime.protocol.errors import InferenceFailed


def encode_response(
    model: str,
    version: str,
    request_id: str | None,
    outputs: Iterable[tuple[str, str, np.ndarray[Any, Any]]],
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
    described: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for name, datatype, array in outputs:
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": array.shape}
        if name in binary:
            blobs.append(write_binary(array, datatype))
            entry["parameters"] = {"binary_data_size": memoryview(blobs[-1]).nbytes}
        else:
            entry["data"] = array.ravel().tolist() if datatype == "BYTES" else array.ravel()
        described.append(entry)
    message["outputs"] = described
    head = _dump(message)
    return (b"".join((head, *blobs)), len(head)) if binary else (head, None)


def _dump(message: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        raise InferenceFailed("the model gave an output that JSON cannot carry") from None


def encode_error(message: str) -> bytes:
    """Return the protocol's only error body."""
    return orjson.dumps({"error": message})
