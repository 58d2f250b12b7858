"""Inference requests written, as a client sends them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from penstock_runtime.protocol.binary_data import write_binary
from penstock_runtime.protocol.schema import TensorSpec


def encode_request(
    inputs: Iterable[tuple[TensorSpec, np.ndarray[Any, Any]]], outputs: Iterable[TensorSpec], *, binary: bool = False
) -> tuple[bytes, int | None]:
    """Return the body of a request for `outputs` (none: all), and the length of its JSON if binary data follow it.

    With `binary` all tensors, both ways, else those that JSON cannot carry.
    """
    entries: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for spec, array in inputs:
        entry: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        if binary or not spec.json_types:
            blobs.append(write_binary(array, spec.datatype))
            entry["parameters"] = {"binary_data_size": memoryview(blobs[-1]).nbytes}
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    asked = [
        {"name": spec.name, "parameters": {"binary_data": binary or not spec.json_types}} for spec in outputs
    ]  # fmt: skip
    head = orjson.dumps({"inputs": entries, **({"outputs": asked} if asked else {})})
    return b"".join((head, *blobs)), len(head) if blobs else None
