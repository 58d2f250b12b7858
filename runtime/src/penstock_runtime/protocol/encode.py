"""Inference responses and errors in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from penstock_runtime.protocol.errors import InferenceFailed


def encode_response(
    model: str,
    version: str,
    request_id: str | None,
    outputs: Iterable[tuple[str, str, np.ndarray[Any, Any]]],
) -> bytes:
    """Return the response body; `outputs` are (name, datatype, array).

    Data is flat, row-major. NaN and infinity, which JSON lacks, become null. `id` is present exactly if
    `request_id` is given. Raises InferenceFailed if a BYTES output is no text that JSON can carry.
    """
    message: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id is not None:
        message["id"] = request_id
    message["outputs"] = [
        {
            "name": name,
            "datatype": datatype,
            "shape": array.shape,
            "data": array.ravel().tolist() if datatype == "BYTES" else array.ravel(),
        }
        for name, datatype, array in outputs
    ]
    try:
        return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        raise InferenceFailed("the model gave an output that JSON cannot carry") from None


def encode_error(message: str) -> bytes:
    """Return the protocol's only error body."""
    return orjson.dumps({"error": message})
