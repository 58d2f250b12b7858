"""What is read from an ONNX file is what the onnx package reads; what must not be loaded is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.onnx_file.check import check_model, describe
from penstock_runtime.engine.onnx_file.model import SMALL_BYTES, OnnxFile
from penstock_runtime.engine.session import Session
from tests.unit.runtime.hostile_files import (
    X,
    Y,
    adding_model,
    branch,
    branches,
    field,
    function_with,
    model,
    outside_tensor,
    places,
    varint,
    write,
    write_weights,
)
from tests.unit.runtime.process import SOURCES

MODELS = ["iris", "text", "zipmap", "regression", "echo", "slow", "patient", "half", "scaled", "picky", "brain"]
WEIGHTS = numpy_helper.from_array(np.ones(4, np.float32), "w")


def graphs(made: ModelProto) -> list[GraphProto]:
    """Return all graphs of a model by the onnx package, functions as graphs without initializers."""
    found = [made.graph, *(GraphProto(node=each.node) for each in made.functions)]
    for graph in found:
        for node in graph.node:
            for attribute in node.attribute:
                found += [attribute.g] if attribute.HasField("g") else []
                found += attribute.graphs
    return found


def assert_same(found: OnnxFile, made: ModelProto) -> None:
    assert (found.ir_version, found.model_version) == (made.ir_version, made.model_version)
    assert (found.producer, found.producer_version) == (made.producer_name, made.producer_version)
    assert (found.domain, found.doc, found.graph) == (made.domain, made.doc_string, made.graph.name)
    assert found.opsets == {each.domain: each.version for each in made.opset_import}
    assert found.metadata == {each.key: each.value for each in made.metadata_props}
    defaults = {each.name for each in made.graph.initializer}
    assert [v.name for v in found.inputs] == [v.name for v in made.graph.input if v.name not in defaults]
    assert [v.name for v in found.outputs] == [v.name for v in made.graph.output]
    assert found.functions == {(each.domain, each.name) for each in made.functions}
    everything = graphs(made)
    counts: dict[tuple[str, str], int] = {}
    for graph in everything:
        for node in graph.node:
            counts[node.domain, node.op_type] = counts.get((node.domain, node.op_type), 0) + 1
    assert found.operators == counts
    dense = [tensor for graph in everything for tensor in graph.initializer]
    dense += [tensor.values for graph in everything for tensor in graph.sparse_initializer]
    assert found.parameters == sum(math.prod(tensor.dims) for tensor in dense)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_read_as_the_onnx_package_reads_it(models: Path, name: str) -> None:
    path = models / name / "model.onnx"
    found = describe(path)
    assert_same(found, onnx.load(path))
    assert found.problems == []
    check_model(path)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"zipmap", "brain"}))
def test_the_schema_is_that_of_onnx_runtime(models: Path, name: str) -> None:
    path = models / name / "model.onnx"
    found = describe(path)
    session = Session(path, 1)._session
    assert [(v.name, v.type) for v in found.inputs] == [(v.name, v.type) for v in session.get_inputs()]
    assert [(v.name, v.type) for v in found.outputs] == [(v.name, v.type) for v in session.get_outputs()]
    assert [list(v.shape or ()) for v in found.inputs] == [v.shape for v in session.get_inputs()]


@pytest.mark.parametrize("place", list(places(WEIGHTS)))
def test_subgraphs_and_functions_are_read_as_the_onnx_package_reads_them(tmp_path: Path, place: str) -> None:
    made = places(WEIGHTS)[place]
    made.producer_name, made.producer_version, made.domain, made.doc_string = "é" * 200, "1", "d", "text"
    made.model_version = -(2**63)
    helper.set_model_props(made, {"a": "b", "classes": "[1, 2]"})
    assert_same(describe(write(tmp_path, made)), made)


def test_types_are_named_as_onnx_runtime_names_them(tmp_path: Path) -> None:
    kind = helper.make_tensor_type_proto
    values = [
        helper.make_tensor_value_info("scalar", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("unknown", TensorProto.INT8, None),
        helper.make_tensor_value_info("dims", TensorProto.DOUBLE, ["n", 3, None, 0]),
        helper.make_value_info("list", helper.make_sequence_type_proto(kind(TensorProto.STRING, [None]))),
        helper.make_value_info("maybe", helper.make_optional_type_proto(kind(TensorProto.BOOL, ["m"]))),
        helper.make_value_info("brain", kind(TensorProto.BFLOAT16, [2])),
        helper.make_sparse_tensor_value_info("sparse", TensorProto.FLOAT, [3]),
        helper.make_value_info(
            "maps",
            helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, kind(TensorProto.FLOAT, []))),
        ),
    ]
    made = helper.make_model(helper.make_graph([], "g", values, [Y]))
    found = describe(write(tmp_path, made)).inputs
    assert [(v.name, v.type, v.shape) for v in found] == [
        ("scalar", "tensor(float)", ()),
        ("unknown", "tensor(int8)", None),
        ("dims", "tensor(double)", ("n", 3, None, 0)),
        ("list", "seq(tensor(string))", None),
        ("maybe", "optional(tensor(bool))", None),
        ("brain", "tensor(bfloat16)", (2,)),
        ("sparse", "sparse_tensor(float)", (3,)),
        ("maps", "seq(map(int64,tensor(float)))", None),
    ]


def test_an_input_with_a_default_is_not_the_callers_to_give(tmp_path: Path) -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], WEIGHTS)
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    path = write(tmp_path, made)
    assert [value.name for value in describe(path).inputs] == ["x"]
    assert [value.name for value in Session(path, 1).schema.inputs] == ["x"]


def test_operators_of_custom_domains_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, model([helper.make_node("Tokenize", ["x"], ["y"], domain="ai.example.text")]))
    with pytest.raises(
        ModelLoadError, match=r"operator 'Tokenize' is of the custom domain 'ai\.example\.text'"
    ) as error:
        Session(path, 1)
    assert "--allow-custom-domains ai.example.text" in str(error.value)
    # Allowed, it is ONNX Runtime's to know it; this one does not.
    with pytest.raises(ModelLoadError, match=r"ONNX Runtime cannot load .*Tokenize"):
        Session(path, 1, {"ai.example.text"})


@pytest.mark.parametrize("place", ["branch", "function", "argument"])
def test_custom_operators_are_found_in_subgraphs_and_functions(tmp_path: Path, place: str) -> None:
    foreign = helper.make_node("F", ["x"], ["r"], domain="foreign")
    if place == "branch":
        made = model(branches(branch(nodes=[foreign])))
    else:
        function = function_with(WEIGHTS)
        target = function.node if place == "function" else function.attribute_proto.add().g.node
        target.append(foreign)
        made = model([helper.make_node("Shift", ["x"], ["y"], domain="own.functions")], functions=(function,))
    with pytest.raises(ModelLoadError, match="operator 'F' is of the custom domain 'foreign'"):
        check_model(write(tmp_path, made))
    check_model(tmp_path / "model.onnx", {"foreign"})


def test_a_models_own_functions_are_no_custom_operators(tmp_path: Path) -> None:
    made = model([helper.make_node("Shift", ["x"], ["y"], domain="own.functions")], functions=(function_with(WEIGHTS),))
    [y] = Session(write(tmp_path, made), 1).run(["y"], {"x": np.ones((1, 4), np.float32)})
    assert y.tolist() == [[2, 2, 2, 2]]
    made.graph.node[0].op_type = "Other"
    with pytest.raises(ModelLoadError, match=r"operator 'Other' is of the custom domain 'own\.functions'"):
        check_model(write(tmp_path, made))


def test_domains_of_onnx_runtime_itself_are_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]))
    assert Session(path, 1).run(["y"], {"x": np.zeros((1, 4), np.float32)})[0].tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            TensorProto(name="w", data_type=1, dims=[2**31], raw_data=bytes(16)),
            "claims 2147483648 elements of float, and",
        ),
        (TensorProto(name="w", data_type=1, dims=[5], raw_data=bytes(16)), "the file holds 16 bytes for them"),
        (TensorProto(name="w", data_type=1, dims=[2**62, 2**62]), "claims 21267647932558653966460912964485513216"),
        (TensorProto(name="w", data_type=1, dims=[4, -1], raw_data=bytes(16)), r"negative size in its shape \[4, -1\]"),
        (TensorProto(name="w", data_type=8, dims=[1000], string_data=[b"a"]), "claims 1000 elements of string"),
        (TensorProto(name="w", data_type=22, dims=[33], raw_data=bytes(16)), "claims 33 elements of int4"),
    ],
)
def test_tensors_that_claim_more_than_the_file_holds_are_refused(
    tmp_path: Path, tensor: TensorProto, message: str
) -> None:
    for place, made in places(tensor).items():
        with pytest.raises(ModelLoadError, match=message):
            check_model(write(tmp_path, made, f"{place}.onnx"))


def test_every_type_of_tensor_may_have_what_it_claims(tmp_path: Path) -> None:
    for number in sorted(set(TensorProto.DataType.values()) - {0}):
        for raw in (True, False):
            tensor = TensorProto(name="w", data_type=number, dims=[8])
            bits = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2, 27: 6, 28: 6, 8: 0}
            if raw and number != TensorProto.STRING:
                size = helper.tensor_dtype_to_np_dtype(number).itemsize * 8
                tensor.raw_data = bytes(8 * bits.get(number, size) // 8)
            elif number == TensorProto.STRING:
                tensor.string_data.extend([b""] * 8)
            else:
                name = helper.tensor_dtype_to_field(number)
                getattr(tensor, name).extend([0] * (16 if "complex" in name or number in (14, 15) else 8))
            check_model(write(tmp_path, adding_model(tensor)))


def test_a_sparse_tensor_too_large_to_write_out_is_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])])
    indices = numpy_helper.from_array(np.array([0], np.int64), "i")
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    made.graph.sparse_initializer.append(SparseTensorProto(values=values, indices=indices, dims=[2**20, 2**20]))
    with pytest.raises(
        ModelLoadError, match=r"tensor 'w' \(initializer\) is sparse, and its shape \[1048576, 1048576\]"
    ):
        check_model(write(tmp_path, made))


def test_messages_say_where_a_tensor_is(tmp_path: Path) -> None:
    made = places(outside_tensor(location="/x"))

    def message(place: str) -> str:
        with pytest.raises(ModelLoadError) as error:
            check_model(write(tmp_path, made[place]))
        return str(error.value)

    assert "tensor 'w' (initializer)" in message("branch")
    assert "tensor 'w' (attribute 'value' of a node Constant)" in message("constant")
    many = model([], *(outside_tensor(f"w{index}", "/x") for index in range(30)))
    with pytest.raises(ModelLoadError, match=r"tensor 'w0' .*\(and 19 more\)"):
        check_model(write(tmp_path, many))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
            "a pointer of Git LFS; run `git lfs pull`",
        ),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"<!DOCTYPE html><html>not found</html>", "text, such as a web page"),
        (b"\x18\0\0\0ORTM" + bytes(50), "ONNX Runtime's own format"),
        (b"\x08\x08this is not a model", "cut off or is damaged"),
        (b"\x08\x08", "it has no graph"),
        (bytes(100), "it is damaged at byte 0"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ModelLoadError) as error:
        Session(write(tmp_path, content), 1)
    assert message in str(error.value)


def test_a_model_that_was_cut_off_is_refused_wherever_the_cut_is(models: Path, tmp_path: Path) -> None:
    whole = (models / "scaled" / "model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    complete = 0
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with suppress(ModelLoadError):
            # Cut between two fields, it is a message of its own: the graph is whole, what follows it is missing.
            found = describe(path)
            assert (found.graph, found.opsets) == ("g", {})
            complete += 1
    assert complete == 1


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"missing\.onnx cannot be read: no such file"):
        describe(tmp_path / "missing.onnx")
    with pytest.raises(ModelLoadError, match="is no regular file"):
        describe(tmp_path)


def test_the_files_name_does_not_decide_how_it_is_loaded(models: Path, tmp_path: Path) -> None:
    """ONNX Runtime takes a file for its own format if it is called .ort, and would not load what was checked."""
    path = write(tmp_path, (models / "scaled" / "model.onnx").read_bytes(), "m.ort")
    assert Session(path, 1).schema.inputs[0].name == "x"


def test_subgraphs_without_end_are_refused(tmp_path: Path) -> None:
    # A graph in an attribute (6) of a node (5) of a graph (1), and so on; the package could not write it.
    graph = b""
    for _ in range(33):
        graph = field(1, field(5, field(6, graph)))
    check_model(write(tmp_path, field(7, graph)))
    with pytest.raises(ModelLoadError, match="its subgraphs lie more than 33 deep"):
        check_model(write(tmp_path, field(7, field(1, field(5, field(6, graph))))))
    for _ in range(3000):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ModelLoadError, match="its subgraphs lie more than 33 deep"):
        check_model(write(tmp_path, field(7, graph)))


def test_types_without_end_are_refused(tmp_path: Path) -> None:
    kind = helper.make_tensor_type_proto(1, [])
    for _ in range(20):
        kind = helper.make_sequence_type_proto(kind)
    made = helper.make_model(helper.make_graph([], "g", [helper.make_value_info("x", kind)], [Y]))
    with pytest.raises(ModelLoadError, match="a type of too many levels"):
        check_model(write(tmp_path, made))


def test_a_great_many_parts_are_refused_soon(tmp_path: Path) -> None:
    path = write(tmp_path, b"\x3a\x02\x0a\x00" + b"\x7a\x00" * 3_000_001)
    with pytest.raises(ModelLoadError, match="too many parts"):
        describe(path)


def test_many_numbers_are_stepped_over_at_once(tmp_path: Path) -> None:
    """A forest's attributes have a tag before each number; a million of them must not count as a million parts."""
    numbers = [*range(0, 2**62, 2**42), -1]
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", nodes_treeids=numbers,
                            nodes_values=[1.5] * 1_000_000)  # fmt: skip
    assert len(numbers) > 1_000_000
    made = helper.make_model(helper.make_graph([node, helper.make_node("Neg", ["x"], ["z"])], "g", [X], [Y]))
    found = describe(write(tmp_path, made))
    assert found.operators == {("ai.onnx.ml", "TreeEnsembleRegressor"): 1, ("", "Neg"): 1}


def test_two_gigabytes_take_neither_memory_nor_time(tmp_path: Path) -> None:
    """The file has holes for weights; a process that may have 256 MB more than it starts with describes it."""
    size = 2**31 - 2**20
    # Two fields around the hole: the initializer with its raw data of `size`, last in the graph.
    head = TensorProto(name="w", data_type=1, dims=[size // 4]).SerializeToString() + b"\x4a" + varint(size)
    graph = GraphProto(name="g", input=[X], output=[Y]).SerializeToString()
    graph += b"\x2a" + varint(len(head) + size) + head
    lead = b"\x08\x08\x3a" + varint(len(graph) + size) + graph
    path = tmp_path / "model.onnx"
    path.write_bytes(lead)
    with path.open("r+b") as stream:
        stream.truncate(len(lead) + size)
    script = f"""
import resource, time
from pathlib import Path
from penstock_runtime.engine.onnx_file.check import describe
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
found = describe(Path({str(path)!r}))
print(found.parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - start)
"""
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(SOURCES)}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    parameters, kilobytes, seconds = map(float, done.stdout.split())
    assert parameters == size // 4
    assert kilobytes < 10_000
    assert seconds < 0.5


def test_a_large_file_is_read_as_a_small_one(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((1500, 1500), np.float32), "w")
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], weights)
    path = write(tmp_path, made)
    assert path.stat().st_size > SMALL_BYTES
    assert_same(describe(path), made)
    path.write_bytes(made.SerializeToString()[:-1])
    with pytest.raises(ModelLoadError, match="was cut off or is damaged"):
        describe(path)


def test_weights_beside_the_model_are_counted(tmp_path: Path) -> None:
    write_weights(tmp_path)
    found = describe(write(tmp_path, adding_model(outside_tensor())))
    assert (found.parameters, found.external, found.problems) == (4, {"w.bin": 32}, [])
