"""A request made up from a schema, for rehearsals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from penstock_runtime.protocol.schema import ModelSchema


def synthetic_request(schema: ModelSchema) -> tuple[bytes, int | None]:
    """Return the body and header length of a request of one row, as most clients would send it.

    It holds zeros, false or empty strings; sizes of -1 are taken as 1. What JSON cannot carry is binary.
    """
    inputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for spec in schema.inputs:
        shape = [1 if dim == -1 else dim for dim in spec.shape or ()]
        entry: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": shape}
        if spec.json_types:
            value: str | bool | int = "" if spec.datatype == "BYTES" else False if spec.datatype == "BOOL" else 0
            entry["data"] = [value] * math.prod(shape)
        else:
            blobs.append(np.zeros(shape, spec.dtype).tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        inputs.append(entry)
    outputs = [
        {"name": spec.name, "parameters": {"binary_data": not spec.json_types}}
        for spec in schema.outputs
    ]  # fmt: skip
    head = orjson.dumps({"inputs": inputs, "outputs": outputs})
    return head + b"".join(blobs), len(head) if blobs else None
