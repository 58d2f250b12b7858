"""A request made up from a schema, for rehearsals."""

from __future__ import annotations

import math

import orjson

from penstock_runtime.protocol.schema import ModelSchema


def synthetic_request(schema: ModelSchema) -> bytes | None:
    """Return a request of one row: zeros, false or empty strings, sizes of -1 taken as 1.

    None where JSON cannot carry one of the inputs.
    """
    inputs = []
    for spec in schema.inputs:
        if not spec.json_types:
            return None
        shape = [1 if dim == -1 else dim for dim in spec.shape or ()]
        value: str | bool | int = "" if spec.datatype == "BYTES" else False if spec.datatype == "BOOL" else 0
        inputs.append(
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": shape,
                "data": [value] * math.prod(shape),
            }
        )
    return orjson.dumps({"inputs": inputs})
