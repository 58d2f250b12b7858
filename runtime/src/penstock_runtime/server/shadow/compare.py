"""Two answers to one request, compared output by output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from penstock_runtime.engine.closeness import Tolerance, difference
from penstock_runtime.protocol.binary_data import Blobs
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.json_data import read_json_data
from penstock_runtime.protocol.schema import TensorSpec
from penstock_runtime.server.shadow.setting import Shadowing

Array = np.ndarray[Any, Any]


class Output(NamedTuple):
    """A tensor of an answer. `finite`: it came as JSON, in which NaN and the infinities are all null."""

    array: Array
    finite: bool


def read_answer(body: bytes, header_length: int | None) -> dict[str, Output]:
    """Return the outputs in an answer, whose first `header_length` bytes are JSON (None: all are).

    Raises ValueError if it is none.
    """
    try:
        message = orjson.loads(body if header_length is None else body[:header_length])
        blobs = Blobs(body, len(body) if header_length is None else header_length)
        outputs = {}
        for entry in message["outputs"]:
            spec = TensorSpec(entry["name"], entry["datatype"], None)
            outputs[spec.name] = _read_output(entry, spec, blobs)
        blobs.finish()
    except (InvalidRequest, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"no answer of the protocol: {type(error).__name__}") from None
    return outputs


def _read_output(entry: Mapping[str, Any], spec: TensorSpec, blobs: Blobs) -> Output:
    shape = [int(dim) for dim in entry["shape"]]
    if min(shape, default=0) < 0:
        raise ValueError("a negative size")
    size = entry.get("parameters", {}).get("binary_data_size")
    if size is not None:
        return Output(blobs.take(size, shape, spec), finite=False)
    data = entry["data"]
    if spec.dtype.kind == "f":
        # None becomes NaN. What JSON has is the shortest text that gives the number in its own precision.
        with np.errstate(over="ignore"):
            return Output(np.array(data, np.float64).astype(spec.dtype).reshape(shape), finite=True)
    # Nothing is known of the text; "true" makes it look at each element's type.
    return Output(read_json_data(data, shape, spec, b"true"), finite=False)


def differing(ours: Mapping[str, Array], theirs: Mapping[str, Output], setting: Shadowing) -> list[str]:
    """Return the names of our outputs that are not in `theirs`, or not the same within the tolerances."""
    return [
        name for name, array in ours.items()
        if name not in theirs or _differs(array, theirs[name], setting.tolerances.get(name), setting.tolerance)
    ]  # fmt: skip


def _differs(ours: Array, output: Output, named: Tolerance | None, usual: Tolerance) -> bool:
    theirs = output.array
    if output.finite and ours.dtype.kind == "f":
        ours = np.where(np.isfinite(ours), ours, ours.dtype.type("nan"))
    if named is not None and "O" not in (ours.dtype.kind, theirs.dtype.kind):
        # Who names an output means its numbers, also if they are integers.
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return difference(ours, theirs, named or usual) is not None
