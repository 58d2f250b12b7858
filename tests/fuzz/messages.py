"""Messages of gRPC for inference: valid ones, raw or typed, and such as are valid but for a thing or two."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.protocol.grpc.contents import FIELDS
from penstock_runtime.protocol.schema import ModelSchema
from tests.fuzz.changes import change_bytes, element
from tests.fuzz.requests import MAX_ROWS, World, shape_of
from tests.unit.runtime.binary import to_bytes
from tests.unit.runtime.grpc_client import typed

INFER = "ModelInfer"
# Methods besides, all of which take a name or nothing.
OTHERS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig",
          "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "Nothing")  # fmt: skip
_TEXTS = ("", "a", "å", "\0", "x" * 300, "FP32", "INT64", "iris", "1", "2", "7")
_SIZES = (0, 1, 2, -1, 2**31, 2**62, -(2**63), 2**63 - 1)
_NUMBERS = (0, 1, 127, 128, 255)


def call(rng: random.Random, world: World) -> tuple[str, bytes]:
    """Return a method and its message."""
    if rng.random() < 0.1:
        asked = pb.ModelMetadataRequest(name=rng.choice(list(world.schemas)), version=rng.choice(("", "1", "7")))
        method, payload = rng.choice(OTHERS), asked.SerializeToString()
    else:
        method, payload = INFER, _inference(rng, world)
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        payload = change_bytes(rng, payload, world.last)
    world.last = payload[:2000]
    return method, payload


def _inference(rng: random.Random, world: World) -> bytes:
    name = rng.choice(list(world.schemas))
    request = _valid(rng, name, world.schemas[name])
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        _change(rng, request)
    payload: bytes = request.SerializeToString()
    return payload


def _valid(rng: random.Random, name: str, schema: ModelSchema) -> Any:
    raw = rng.random() < 0.5 or any(not spec.json_types for spec in (*schema.inputs, *schema.outputs))
    request = pb.ModelInferRequest(model_name=name, model_version=rng.choice(("", "", "1")), id=rng.choice(("", "a")))
    rows = rng.randrange(MAX_ROWS + 1)
    for spec in schema.inputs:
        shape = shape_of(rng, spec, rows)
        flat = [element(rng, spec.datatype) for _ in range(int(np.prod(shape)))]
        if raw:
            request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
            request.raw_input_contents.append(to_bytes(spec.datatype, flat))
        else:
            request.inputs.append(typed(spec.name, spec.datatype, shape, flat))
    if rng.random() < 0.5:
        for spec in rng.sample(schema.outputs, rng.randint(1, len(schema.outputs))):
            request.outputs.add(name=spec.name)
    return request


def _change(rng: random.Random, request: Any) -> None:
    """Change one field."""
    entry = rng.choice(request.inputs) if request.inputs else request.inputs.add()
    match rng.randrange(9):
        case 0:
            setattr(entry, rng.choice(("name", "datatype")), rng.choice(_TEXTS))
        case 1:
            entry.shape[:] = rng.choices(_SIZES, k=rng.choice((0, 1, 2, 2, 20)))
        case 2:
            field = rng.choice(sorted(set(FIELDS.values())))
            value = rng.choice((b"", b"a", b"\xff")) if field == "bytes_contents" else rng.choice(_NUMBERS)
            getattr(entry.contents, field).append(value)
        case 3:
            request.inputs.add().CopyFrom(entry)
        case 4:
            request.outputs.add(name=rng.choice(_TEXTS))
        case 5:
            request.raw_input_contents.append(rng.randbytes(rng.randrange(20)))
        case 6 if request.raw_input_contents:
            at = rng.randrange(len(request.raw_input_contents))
            blob = request.raw_input_contents[at]
            request.raw_input_contents[at] = change_bytes(rng, blob, blob)
        case 7:
            setattr(request, rng.choice(("model_name", "model_version", "id")), rng.choice(_TEXTS))
        case _:
            target = rng.choice((request, entry, *request.outputs))
            target.parameters[rng.choice(("a", "classification", "binary_data"))].int64_param = rng.choice(_SIZES)
