"""An answer of the protocol as its client reads it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from penstock_runtime.protocol.binary_data import Blobs
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.json_data import read_json_data
from penstock_runtime.protocol.schema import TensorSpec

# What goes wrong with JSON that is not made as expected.
_UNEXPECTED = (InvalidRequest, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Output(NamedTuple):
    """A tensor of an answer. `finite`: it came as JSON, in which NaN and the infinities are all null."""

    array: np.ndarray[Any, Any]
    finite: bool


class Answer:
    """The answer in `body`, whose first `header_length` bytes are JSON (None: all are). `specs`: its outputs."""

    def __init__(self, body: bytes, header_length: int | None = None) -> None:
        """Parse what says which outputs there are; raises ValueError if it is no answer."""
        self._body = body
        self._start = len(body) if header_length is None else header_length
        try:
            message = orjson.loads(body if header_length is None else body[:header_length])
            self._entries: list[dict[str, Any]] = list(message["outputs"])
            self.specs = tuple(
                TensorSpec(entry["name"], entry["datatype"], tuple(map(int, entry["shape"]))) for entry in self._entries
            )
        except _UNEXPECTED as error:
            raise _no_answer(error) from None
        if any(dim < 0 for spec in self.specs for dim in spec.shape or ()):
            raise ValueError("a negative size")
        if any(type(text) is not str for spec in self.specs for text in (spec.name, spec.datatype)):
            raise ValueError("a name or datatype that is no text")

    def read(self, wanted: Container[str] | None = None) -> dict[str, Output]:
        """Return the outputs that are `wanted` (None: all) by name; raises ValueError."""
        blobs = Blobs(self._body, self._start)
        outputs: dict[str, Output] = {}
        try:
            for entry, spec in zip(self._entries, self.specs, strict=True):
                # Those in binary form lie one behind the other, and cost nothing.
                if wanted is None or spec.name in wanted or "data" not in entry:
                    outputs[spec.name] = _read_output(entry, spec, blobs)
            blobs.finish()
        except _UNEXPECTED as error:
            raise _no_answer(error) from None
        return outputs


def _read_output(entry: Mapping[str, Any], spec: TensorSpec, blobs: Blobs) -> Output:
    shape = list(spec.shape or ())
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


def _no_answer(error: Exception) -> ValueError:
    return ValueError(f"no answer of the protocol: {type(error).__name__}")
