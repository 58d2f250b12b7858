"""Requests and answers with binary tensors, laid out by hand as a client does."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.unit.runtime.process import Reply, Server

LENGTH = "Inference-Header-Content-Length"
DTYPES = {
    "BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip


def to_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    """Return flat values in the binary layout."""
    if datatype == "BYTES":
        raws = [value if isinstance(value, bytes) else value.encode() for value in values]
        return b"".join(struct.pack("<I", len(raw)) + raw for raw in raws)
    return np.array(values, DTYPES[datatype]).tobytes()


def from_bytes(datatype: str, blob: bytes) -> list[Any]:
    """Return the flat values of a binary tensor."""
    if datatype != "BYTES":
        values: list[Any] = np.frombuffer(blob, DTYPES[datatype]).tolist()
        return values
    texts: list[Any] = []
    while blob:
        (size,) = struct.unpack("<I", blob[:4])
        texts.append(blob[4 : 4 + size].decode())
        blob = blob[4 + size :]
    return texts


def blob_input(name: str, datatype: str, shape: list[int], size: object) -> dict[str, Any]:
    """Return an input whose data is binary."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def request(inputs: list[Any], *blobs: bytes, **more: object) -> tuple[bytes, int]:
    """Return a body and the length of its JSON."""
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(blobs), len(head)


def send(server: Server, body: bytes, length: object, **headers: str) -> Reply:
    """Send a body whose first `length` bytes are JSON."""
    return server.infer(body, **{LENGTH: str(length)}, **headers)


def outputs(reply: Reply) -> dict[str, dict[str, Any]]:
    """Return the outputs of an answer by name, binary ones with their values in "data"."""
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers[LENGTH.lower()])
    head, rest = json.loads(reply.body[:length]), reply.body[length:]
    found = {}
    for output in head["outputs"]:
        if "data" not in output:
            size = output["parameters"]["binary_data_size"]
            output["data"] = from_bytes(output["datatype"], rest[:size])
            rest = rest[size:]
        found[output["name"]] = output
    assert not rest, "bytes are left over"
    return found
