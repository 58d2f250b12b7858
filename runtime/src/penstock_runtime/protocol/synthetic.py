"""A request made up from a schema, for rehearsals and measurements."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock_runtime.protocol.request import encode_request
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec


def synthetic_request(schema: ModelSchema, *, binary: bool = False) -> tuple[bytes, int | None]:
    """Return the body and header length of a request of one row, as most clients would send it.

    It holds zeros, false or empty strings; sizes of -1 are taken as 1. What JSON cannot carry is binary.
    """
    return encode_request([(spec, synthetic_row(spec)) for spec in schema.inputs], schema.outputs, binary=binary)


def synthetic_row(spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return zeros, false or empty strings of the shape of `spec`; sizes of -1 are taken as 1."""
    shape = [1 if dim == -1 else dim for dim in spec.shape or ()]
    return np.full(shape, "", np.object_) if spec.datatype == "BYTES" else np.zeros(shape, spec.dtype)
