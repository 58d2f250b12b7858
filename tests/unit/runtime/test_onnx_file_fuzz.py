"""Whatever bytes a model file holds: it is described or refused, soon and in little memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.onnx_file.check import check_model, describe
from tests.unit.runtime.hostile_files import field, outside_tensor, places, varint, write_weights

WEIGHTS = numpy_helper.from_array(np.ones(4, np.float32), "w")
SEEDS = [made.SerializeToString() for tensor in (WEIGHTS, outside_tensor()) for made in places(tensor).values()]
SECONDS = 2.0
ROUNDS, SEED = 4000, 0

sized = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_weights(folder)
    return folder / "model.onnx"


def look(path: Path, content: bytes) -> bool:
    """Return whether the file is a model; anything but ModelLoadError is a failure, and so is a long time."""
    path.write_bytes(content)
    start = time.process_time()
    accepted = False
    with suppress(ModelLoadError):
        describe(path)
        accepted = True
    with suppress(ModelLoadError):
        check_model(path)
    assert time.process_time() - start < SECONDS
    return accepted


@sized
@given(content=st.binary(max_size=2000))
def test_any_bytes(path: Path, content: bytes) -> None:
    look(path, content)


def lying(number: int, parts: list[bytes], more: int) -> bytes:
    """Return a field of `parts` that says it is `more` bytes longer than they are."""
    body = b"".join(parts)
    return varint(number << 3 | 2) + varint(max(0, len(body) + more)) + body


# Messages in messages, by the numbers that mean something, with lengths that may lie.
numbers = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20, 22, 23, 25])
leaves = st.one_of(
    st.binary(max_size=12),
    st.builds(lambda number, value: varint(number << 3) + varint(value), numbers, st.integers(0, 2**64 - 1)),
    st.builds(lambda number, value: varint(number << 3 | 5) + value, numbers, st.binary(min_size=3, max_size=5)),
    st.sampled_from([b"location", b"offset", b"../w.bin", b"w.bin", b"If", b"com.microsoft", b"\x70\x01"]),
)
messages = st.recursive(
    leaves,
    lambda inner: st.builds(
        lying, numbers, st.lists(inner, max_size=4), st.sampled_from([0, 0, 0, 0, 0, 1, -1, 2**31, 2**62])
    ),
    max_leaves=40,
)  # fmt: skip


@sized
@given(parts=st.lists(messages, max_size=6))
def test_messages_that_look_like_models(path: Path, parts: list[bytes]) -> None:
    look(path, field(7, b"".join(parts)) + b"".join(parts))


def mutated(generator: random.Random, seed: bytes) -> bytes:
    """Return `seed` with a few bytes changed, taken out, doubled, or put from elsewhere."""
    data = bytearray(seed)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data) or 1)
        length = generator.randint(0, 8)
        match generator.randrange(5):
            case 0:
                data[at : at + 1] = bytes([generator.randrange(256)])
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = generator.choice([b"\x70\x01", b"\x08\xff\xff\xff\xff\x0f", b"\x2a\x00", b"\x6a\x00"])
            case _:
                other = generator.choice(SEEDS)
                start = generator.randrange(len(other))
                data[at : at + length] = other[start : start + length]
    return bytes(data)


def test_models_with_a_few_bytes_changed(path: Path) -> None:
    """What both take is the same to both: the onnx package sees no operator and no location that we did not."""
    generator = random.Random(SEED)
    accepted = both = 0
    for _ in range(ROUNDS):
        content = mutated(generator, generator.choice(SEEDS))
        if not look(path, content):
            continue
        accepted += 1
        # What we take and protobuf does not is no harm: it will not be loaded.
        with suppress(DecodeError):
            assert_nothing_hidden(path, onnx.load_from_string(content))
            both += 1
    assert both > ROUNDS // 20, (accepted, both)


def assert_nothing_hidden(path: Path, made: ModelProto) -> None:
    found = describe(path)
    nodes, tensors = everything(made)
    assert sum(found.operators.values()) == len(nodes)
    assert {domain for domain, _ in found.operators} == {shown(each.domain) for each in nodes}
    outside = [each for each in tensors if each.data_location == 1]
    if not found.problems:
        assert {entry.value for each in outside for entry in each.external_data if entry.key == "location"} <= {"w.bin"}


def shown(text: str | bytes) -> str:
    """Return text as the package gives it: bytes if they are no UTF-8."""
    return text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")


def everything(made: ModelProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return all nodes and tensors of a model's graph and functions, at any depth."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def graph(each: onnx.GraphProto) -> None:
        tensors.extend(each.initializer)
        for sparse in each.sparse_initializer:
            tensors.extend((sparse.values, sparse.indices))
        for node in each.node:
            nodes.append(node)
            attributes(node.attribute)

    def attributes(listed: Iterable[onnx.AttributeProto]) -> None:
        for each in listed:
            tensors.extend((each.t, *each.tensors, each.sparse_tensor.values, each.sparse_tensor.indices))
            for sparse in each.sparse_tensors:
                tensors.extend((sparse.values, sparse.indices))
            for inner in ([each.g] if each.HasField("g") else []) + list(each.graphs):
                graph(inner)

    graph(made.graph)
    for function in made.functions:
        nodes.extend(function.node)
        for node in function.node:
            attributes(node.attribute)
        attributes(function.attribute_proto)
    return nodes, tensors


def test_hostile_lengths_take_no_memory(path: Path) -> None:
    claims = [
        field(7, field(5, field(1, varint(2**62) * 30) + b"\x10\x01")),
        field(7, field(5, b"\x08" + varint(2**63) + b"\x10\x01")),
        field(7, field(1, field(4, b"x" * 10))) + b"\x3a" + varint(2**40),
        field(7, field(11, field(1, b"n" * 100_000))),
        field(7, b"".join(field(1, field(4, b"%d" % index)) for index in range(50_000))),
        field(7, b"".join(field(11, field(1, b"%d" % index)) for index in range(50_000))),
        field(7, b"") + b"".join(field(14, field(1, b"%d" % index)) for index in range(50_000)),
        field(7, field(5, b"".join(b"\x08\x01" for _ in range(300_000)))),
    ]
    for content in claims:
        path.write_bytes(content)
        tracemalloc.start()
        with suppress(ModelLoadError):
            describe(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20 * 2**20
