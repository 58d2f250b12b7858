"""A whole ONNX file walked once: what it takes, gives and does, and what speaks against loading it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path

from penstock_runtime.engine.onnx_file.domains import Operator
from penstock_runtime.engine.onnx_file.external_data import ExternalFiles
from penstock_runtime.engine.onnx_file.tensors import Tensor, read_sparse, read_tensor
from penstock_runtime.engine.onnx_file.types import MAX_NAME, Value, read_value
from penstock_runtime.engine.onnx_file.wire import FIXED32, VARINT, Malformed, Wire, int64, readable, run_of, tag

# Protobuf reads 100 messages deep, and each subgraph is three.
MAX_GRAPHS_DEEP = 33
MAX_VALUES = 10_000
MAX_OPERATORS = 10_000
MAX_PROBLEMS = 20
# Read into memory, which is quicker to look into than a map.
SMALL_BYTES = 4 * 2**20
# Metadata is shown; more of it nobody reads.
MAX_METADATA = 100
MAX_TEXT = 1000


@dataclass(slots=True)
class OnnxFile:
    """What is in a file. `parameters` are the elements of its initializers, those of subgraphs included.

    `inputs` are those that a caller must give. `external` has the bytes of each file beside it that its tensors
    lie in; `functions` are the operators that it defines itself; `problems` say why tensors cannot be loaded.
    """

    ir_version: int = 0
    model_version: int = 0
    producer: str = ""
    producer_version: str = ""
    domain: str = ""
    doc: str = ""
    graph: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    operators: Counter[Operator] = field(default_factory=Counter)
    functions: set[Operator] = field(default_factory=set)
    parameters: int = 0
    external: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@contextmanager
def opened(path: Path) -> Iterator[Wire]:
    """Give a reader of the file, which must not be empty; raises OSError.

    A large one is mapped, not read: if somebody shortens it meanwhile, the process is killed (SIGBUS).
    """
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size <= SMALL_BYTES:
            yield Wire(stream.read(SMALL_BYTES + 1))
            return
        with mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
            yield Wire(data)


def read_model(wire: Wire, folder: Path) -> OnnxFile:
    """Return what the file in `folder` holds; raises Malformed if it is no ONNX model."""
    return _Walk(wire, ExternalFiles(folder)).model()


# Field numbers are those of onnx.proto.
_IR, _PRODUCER, _PRODUCER_VERSION, _DOMAIN, _MODEL_VERSION = tag(1, VARINT), tag(2), tag(3), tag(4), tag(5, VARINT)
_DOC, _GRAPH, _OPSET, _METADATA, _FUNCTION = tag(6), tag(7), tag(8), tag(14), tag(25)
_GRAPH_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = tag(1), tag(2), tag(5), tag(11), tag(12), tag(15)
_NODE_NAME, _OP_TYPE, _ATTRIBUTE, _NODE_DOMAIN = tag(3), tag(4), tag(5), tag(7)
_ATTR_NAME, _ATTR_T, _ATTR_G, _ATTR_TENSORS, _ATTR_GRAPHS = tag(1), tag(5), tag(6), tag(10), tag(11)
_ATTR_SPARSE, _ATTR_SPARSES = tag(22), tag(23)
_ATTR_RUNS = run_of(tag(7, FIXED32), tag(8, VARINT))
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = tag(1), tag(7), tag(10), tag(11)
_KEY, _VALUE = tag(1), tag(2)
_OPSET_VERSION = tag(2, VARINT)
# Of these protobuf merges a second one into the first, and the result would be one that nobody has checked.
_ONCE = frozenset({_ATTR_T, _ATTR_G, _ATTR_SPARSE})


class _Walk:
    def __init__(self, wire: Wire, files: ExternalFiles) -> None:
        self._wire = wire
        self._files = files
        self._found = OnnxFile(external=files.sizes)
        self._operators: Counter[tuple[bytes, bytes]] = Counter()

    def model(self) -> OnnxFile:
        found, wire = self._found, self._wire
        graph: tuple[int, int] | None = None
        for key, a, b in wire.fields(0, len(wire.data)):
            if key == _GRAPH:
                if graph is not None:
                    raise Malformed("it has two graphs")
                graph = a, b
                self._values(a, b)
                self._graph(a, b, 0)
            elif key == _OPSET:
                self._opset(a, b)
            elif key == _FUNCTION:
                self._function(a, b)
            elif key == _IR:
                found.ir_version = int64(a)
            elif key == _MODEL_VERSION:
                found.model_version = int64(a)
            elif key == _METADATA:
                self._metadata(a, b)
            elif key in _TEXTS:
                setattr(found, _TEXTS[key], wire.text(a, b, MAX_TEXT))
        if graph is None:
            raise Malformed("it has no graph: this is no ONNX model, or one that was cut off")
        for (domain, operator), count in self._operators.items():
            found.operators[readable(domain), readable(operator)] += count
        return found

    def _values(self, start: int, end: int) -> None:
        """Read inputs and outputs; an input that is an initializer too is a default, not the caller's to give."""
        found, wire = self._found, self._wire
        for key, a, b in wire.fields(start, end):
            if key == _INPUT:
                found.inputs.append(read_value(wire, a, b))
            elif key == _OUTPUT:
                found.outputs.append(read_value(wire, a, b))
            elif key == _GRAPH_NAME:
                found.graph = wire.text(a, b, MAX_NAME)
            if len(found.inputs) > MAX_VALUES or len(found.outputs) > MAX_VALUES:
                raise Malformed(f"it has more than {MAX_VALUES} inputs or outputs")

    def _graph(self, start: int, end: int, depth: int) -> None:
        if depth > MAX_GRAPHS_DEEP:
            raise Malformed(f"its subgraphs lie more than {MAX_GRAPHS_DEEP} deep in each other")
        wire, found = self._wire, self._found
        given = {value.name for value in found.inputs} if not depth else set()
        for key, a, b in wire.fields(start, end):
            if key == _GRAPH_NODE:
                self._node(a, b, depth)
            elif key == _INITIALIZER:
                tensor = read_tensor(wire, a, b, self._files)
                given.discard(tensor.name)
                self._initializer(tensor)
            elif key == _SPARSE:
                values, indices = read_sparse(wire, a, b, self._files)
                given.discard(values.name)
                self._initializer(values)
                self._check(indices, "indices")
        if not depth:
            found.inputs = [value for value in found.inputs if value.name in given]

    def _initializer(self, tensor: Tensor) -> None:
        self._found.parameters += tensor.elements
        self._check(tensor, "initializer")

    def _node(self, start: int, end: int, depth: int) -> None:
        data = self._wire.data
        operator = domain = b""
        for key, a, b in self._wire.fields(start, end):
            if key == _ATTRIBUTE:
                self._attribute(a, b, depth, (start, end))
            elif key == _OP_TYPE:
                operator = data[a : min(b, a + MAX_NAME)]
            elif key == _NODE_DOMAIN:
                domain = data[a : min(b, a + MAX_NAME)]
        self._operators[domain, operator] += 1
        if len(self._operators) > MAX_OPERATORS:
            raise Malformed(f"it names more than {MAX_OPERATORS} different operators")

    def _attribute(self, start: int, end: int, depth: int, owner: tuple[int, int]) -> None:
        wire = self._wire
        seen = set()
        name = ""
        for key, a, b in wire.fields(start, end, _ATTR_RUNS):
            if key in _ONCE:
                if key in seen:
                    raise Malformed("an attribute has its value twice")
                seen.add(key)
            if key in (_ATTR_T, _ATTR_TENSORS):
                self._check(read_tensor(wire, a, b, self._files), name, owner)
            elif key in (_ATTR_G, _ATTR_GRAPHS):
                self._graph(a, b, depth + 1)
            elif key in (_ATTR_SPARSE, _ATTR_SPARSES):
                for tensor in read_sparse(wire, a, b, self._files):
                    self._check(tensor, name, owner)
            elif key == _ATTR_NAME:
                name = wire.text(a, b, MAX_NAME)

    def _function(self, start: int, end: int) -> None:
        wire = self._wire
        domain = name = ""
        for key, a, b in wire.fields(start, end):
            if key == _FUNCTION_NODE:
                self._node(a, b, 1)
            elif key == _FUNCTION_ATTRIBUTE:
                self._attribute(a, b, 1, (0, 0))
            elif key == _FUNCTION_NAME:
                name = wire.text(a, b, MAX_NAME)
            elif key == _FUNCTION_DOMAIN:
                domain = wire.text(a, b, MAX_NAME)
        self._found.functions.add((domain, name))

    def _check(self, tensor: Tensor, role: str, owner: tuple[int, int] | None = None) -> None:
        if tensor.problem is None or len(self._found.problems) >= MAX_PROBLEMS:
            return
        name = f"tensor '{tensor.name[:200]}'" if tensor.name else "a tensor without a name"
        where = f" ({role})" if owner is None else f" (attribute '{role[:80]}' of {self._describe(*owner)})"
        self._found.problems.append(f"{name}{where} {tensor.problem}")

    def _describe(self, start: int, end: int) -> str:
        """Return what to call a node: its name, or its operator."""
        texts = {key: self._wire.text(a, b, 200) for key, a, b in self._wire.fields(start, end)
                 if key in (_NODE_NAME, _OP_TYPE)}  # fmt: skip
        name = texts.get(_NODE_NAME)
        return f"node '{name}'" if name else f"a node {texts.get(_OP_TYPE, 'without operator')}"

    def _opset(self, start: int, end: int) -> None:
        wire = self._wire
        domain, version = "", 0
        for key, a, b in wire.fields(start, end):
            if key == _KEY:
                domain = wire.text(a, b, MAX_NAME)
            elif key == _OPSET_VERSION:
                version = int64(a)
        if len(self._found.opsets) < MAX_METADATA:
            self._found.opsets[domain] = version

    def _metadata(self, start: int, end: int) -> None:
        if len(self._found.metadata) < MAX_METADATA:
            texts = {key: self._wire.text(a, b, MAX_TEXT) for key, a, b in self._wire.fields(start, end)}
            self._found.metadata[texts.get(_KEY, "")] = texts.get(_VALUE, "")


_TEXTS = {_PRODUCER: "producer", _PRODUCER_VERSION: "producer_version", _DOMAIN: "domain", _DOC: "doc"}
