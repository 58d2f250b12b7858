"""Requests of every kind that the server takes: valid ones, and such as are valid but for a thing or two."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from penstock_runtime.protocol.large_json import LARGE_BYTES
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from tests.fuzz.changes import change_bytes, change_value, element
from tests.unit.runtime.binary import blob_input, to_bytes
from tests.unit.runtime.process import tensor

LENGTH = b"inference-header-content-length"
MAX_ROWS = 3
# Ids of predictions that feedback is given on: the newest.
MAX_IDS = 64
_ZEROS = b"\0" * 2**22
_BOMBS = (gzip.compress(_ZEROS, 9), zlib.compress(_ZEROS, 9))
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_PIECES = ("", "v2", "models", "health", "ready", "live", "infer", "config", "stats", "versions", "1", "2", "99",
           "feedback", "repository", "index", "load", "unload", "..", ".", "å", "\ufffd", "\0", "a" * 300)  # fmt: skip


class Request(NamedTuple):
    """A request as a server's application gets it. `port`: data or admin."""

    port: str
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass
class World:
    """What the requests are about: the models by name, and what their answers gave to go on with."""

    schemas: Mapping[str, ModelSchema]
    ids: list[str] = field(default_factory=list)
    last: bytes = b"{}"

    def remember(self, identity: str) -> None:
        """Keep a prediction's id, for feedback."""
        self.ids.append(identity)
        if len(self.ids) > MAX_IDS:
            del self.ids[: MAX_IDS // 2]


def shape_of(rng: random.Random, spec: TensorSpec, rows: int) -> list[int]:
    """Return a shape that fits `spec`."""
    if spec.shape is None:
        return [rng.randrange(4) for _ in range(rng.randrange(4))]
    return [rows if dim == -1 else dim for dim in spec.shape]


def _message(rng: random.Random, schema: ModelSchema, binary: float) -> tuple[dict[str, Any], list[bytes]]:
    """Return a valid request and its blobs; each tensor is binary by the chance `binary`, or where it must be."""
    inputs: list[Any] = []
    blobs: list[bytes] = []
    rows = rng.randrange(MAX_ROWS + 1)
    for spec in schema.inputs:
        shape = shape_of(rng, spec, rows)
        flat = [element(rng, spec.datatype) for _ in range(int(np.prod(shape)))]
        if not spec.json_types or rng.random() < binary:
            blobs.append(to_bytes(spec.datatype, flat))
            inputs.append(blob_input(spec.name, spec.datatype, shape, len(blobs[-1])))
        else:
            data: Any = flat
            if len(shape) == 2 and flat and rng.random() < 0.5:
                data = [flat[at : at + shape[1]] for at in range(0, len(flat), shape[1])]
            inputs.append(tensor(spec.name, spec.datatype, shape, data))
    message: dict[str, Any] = {"inputs": inputs}
    if rng.random() < 0.5 or any(not spec.json_types for spec in schema.outputs):
        wanted = [{"name": spec.name, "parameters": {"binary_data": rng.random() < binary or not spec.json_types}}
                  for spec in schema.outputs]  # fmt: skip
        message["outputs"] = rng.sample(wanted, rng.randint(1, len(wanted)))
    if rng.random() < 0.3:
        message["id"] = rng.choice(["", "a", "å\u2028", "x" * 100])
    if rng.random() < 0.3:
        message["parameters"] = {"priority": 1, "note": "a", "binary_data_output": rng.random() < binary}
    return message, blobs


def _target(rng: random.Random, world: World) -> tuple[str, str, ModelSchema]:
    name = rng.choice(list(world.schemas))
    version = rng.choice(("", "", "", "/versions/1")) if rng.random() < 0.97 else "/versions/7"
    return name, f"/v2/models/{name}{version}/infer", world.schemas[name]


def inference(rng: random.Random, world: World, binary: float) -> Request:
    """Return a request for inference: changed as a value, as bytes, in both ways, or not at all."""
    _, path, schema = _target(rng, world)
    message, blobs = _message(rng, schema, binary)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 1, 2, 4))):
        change_value(rng, message)
    head = json.dumps(message, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        # For the reader of large ones.
        head += b" " * LARGE_BYTES
    changes = rng.choice((0, 0, 0, 0, 1, 3))
    length = len(head)
    if rng.random() < 0.5:
        for _ in range(changes):
            head = change_bytes(rng, head, world.last)
        if rng.random() < 0.8:
            # As a client would that really means it: the header is right, and what is wrong lies deeper.
            length = len(head)
        body = head + b"".join(blobs)
    else:
        body = head + b"".join(blobs)
        for _ in range(changes):
            body = change_bytes(rng, body, world.last)
    world.last = body[:2000]
    headers: list[tuple[bytes, bytes]] = []
    if blobs or rng.random() < 0.1:
        headers.append((LENGTH, _length(rng, length)))
    return _finish(rng, "data", path, headers, body)


def _length(rng: random.Random, length: int) -> bytes:
    if rng.random() < 0.8:
        return b"%d" % length
    return rng.choice((b"%d" % (length + 1), b"%d" % max(0, length - 1), b"0", b"-1", b"1.0", b"", b"5 5", b"9" * 30,
                       b"9" * 18, b"0x10", "²".encode(), b"\xff", b"+7", b"%d" % (length * 2)))  # fmt: skip


def raw(rng: random.Random, world: World) -> Request:
    """Return a request whose body is a tensor alone, of the right size or about it."""
    _, path, schema = _target(rng, world)
    spec = schema.inputs[0]
    shape = shape_of(rng, spec, rng.randrange(MAX_ROWS + 1))
    body = to_bytes(spec.datatype, [element(rng, spec.datatype) for _ in range(int(np.prod(shape)))])
    for _ in range(rng.choice((0, 0, 0, 1))):
        body = change_bytes(rng, body, world.last)
    return _finish(rng, "data", path, [(LENGTH, b"0")], body)


def feedback(rng: random.Random, world: World) -> Request:
    """Return a batch of labels for predictions that there were, or nearly."""
    model = rng.choice(list(world.schemas))
    batch: Any = [_feedback_item(rng, world) for _ in range(rng.randrange(6))]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        change_value(rng, batch)
    body = json.dumps(batch, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    for _ in range(rng.choice((0, 0, 0, 1))):
        body = change_bytes(rng, body, world.last)
    return _finish(rng, "admin", f"/v2/models/{model}/feedback", [], body)


def _feedback_item(rng: random.Random, world: World) -> dict[str, Any]:
    identity = rng.choice(world.ids) if world.ids else "AQ"
    if rng.random() < 0.3:
        identity = change_bytes(rng, identity.encode(), identity.encode()).decode("utf-8", "replace")
    value: Any = rng.choice(
        (True, False, 0, 1, 2, 0.5, -1e300, 1e308, float("inf"), "setosa", "", None, 2**63, [1], [], {})
    )
    if rng.random() < 0.3:
        value = [value] * rng.randrange(4)
    return {"id": identity, rng.choice(("label", "correct", "error", "label", "nothing")): value}


def elsewhere(rng: random.Random, world: World) -> Request:
    """Return a request of any method for any path: those that there are, and others."""
    names = (*_PIECES, *world.schemas)
    if rng.random() < 0.5:
        path = "/" + "/".join(rng.choice(names) for _ in range(rng.randrange(7)))
    else:
        model = rng.choice(list(world.schemas))
        path = rng.choice(("/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{model}", "/v2/models/stats",
                           f"/v2/models/{model}/ready", f"/v2/models/{model}/config", f"/v2/models/{model}/stats",
                           f"/v2/models/{model}/versions/1/stats", "/v2/repository/index",
                           f"/v2/repository/models/{model}/load", f"/v2/repository/models/{model}/unload"))  # fmt: skip
    body = rng.choice((b"", b"{}", b'{"ready":true}', b'{"ready":1}', b"[]", b"null", b'{"parameters":{"config":"{}"}}',
                       b"{", b'{"parameters":[]}'))  # fmt: skip
    port = rng.choice(("data", "admin"))
    return _finish(rng, port, path, [], body, rng.choice(_METHODS))


def _finish(
    rng: random.Random, port: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes, method: str = "POST"
) -> Request:
    chance = rng.random()
    if chance < 0.1:
        coding, body = _encoded(rng, body)
        headers.append((b"content-encoding", coding))
    if chance < 0.2:
        accepted = rng.choice((b"gzip", b"deflate", b"gzip;q=0.1, deflate", b"*;q=x", b"", b"br, gzip;q=0"))
        headers.append((b"accept-encoding", accepted))
    if rng.random() < 0.01 and method == "POST":
        method = rng.choice(_METHODS)
    return Request(port, method, path, (*headers, (b"content-length", b"%d" % len(body))), body)


def _encoded(rng: random.Random, body: bytes) -> tuple[bytes, bytes]:
    coding = rng.choice((b"gzip", b"deflate"))
    packed = gzip.compress(body, 1) if coding == b"gzip" else zlib.compress(body, 1)
    match rng.randrange(8):
        case 0:
            packed = packed[: rng.randrange(len(packed))]
        case 1:
            packed += packed
        case 2:
            packed = change_bytes(rng, packed, packed)
        case 3 if rng.random() < 0.05:
            packed = _BOMBS[coding != b"gzip"]
        case 4:
            coding = rng.choice((b"identity", b"GZIP", b"br", b"", b"gzip, deflate", b"\xff"))
    return coding, packed
