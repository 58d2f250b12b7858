"""ONNX files with something wrong in them, or with their data elsewhere, built with the onnx package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])


def outside_tensor(
    name: str = "w", location: str | bytes = "w.bin", dims: tuple[int, ...] = (4,), **more: object
) -> TensorProto:
    """Return an FP32 tensor whose data lie in a file; `more` are further entries, such as offset."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value if isinstance(value, str) else str(value)
    return tensor


def adding_model(tensor: TensorProto) -> ModelProto:
    """Return a model that adds the tensor to its input."""
    return model([helper.make_node("Add", ["x", "w"], ["y"])], tensor)


def model(nodes: list[NodeProto], *initializers: TensorProto, functions: tuple[FunctionProto, ...] = ()) -> ModelProto:
    """Return a model of x [batch, 4] to y [batch, 4]."""
    graph = helper.make_graph(nodes, "g", [X], [Y], list(initializers))
    domains = {"": 17, **{node.domain: 1 for node in nodes if node.domain}}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def branches(then: GraphProto) -> list[NodeProto]:
    """Return nodes of an If whose first branch is `then`."""
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["r"])], "other", [], [_branch_result()])
    true = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "true"))
    return [true, helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)]


def _branch_result() -> ValueInfoProto:
    return helper.make_tensor_value_info("r", TensorProto.FLOAT, ["batch", 4])


def branch(*initializers: TensorProto, nodes: list[NodeProto] | None = None) -> GraphProto:
    """Return a branch that adds w to x."""
    adding = [helper.make_node("Add", ["x", "w"], ["r"])] if nodes is None else nodes
    return helper.make_graph(adding, "then", [], [_branch_result()], list(initializers))


def function_with(tensor: TensorProto, domain: str = "own.functions") -> FunctionProto:
    """Return a function own.functions.Shift, which adds the constant `tensor`."""
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("Add", ["a", "w"], ["b"])]
    return helper.make_function(domain, "Shift", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def places(tensor: TensorProto) -> dict[str, ModelProto]:
    """Return models that hold `tensor` in each place where a tensor can be."""
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    listed = NodeProto(op_type="Add", input=["x", "x"], output=["y"])
    listed.attribute.append(AttributeProto(name="all", type=AttributeProto.TENSORS, tensors=[tensor]))
    graphs = NodeProto(op_type="Add", input=["x", "x"], output=["y"])
    graphs.attribute.append(AttributeProto(name="all", type=AttributeProto.GRAPHS, graphs=[branch(tensor)]))
    indices = numpy_helper.from_array(np.array([0], np.int64), "indices")
    sparse = SparseTensorProto(values=tensor, indices=indices, dims=[4])
    with_sparse = model([helper.make_node("Add", ["x", "w"], ["y"])])
    with_sparse.graph.sparse_initializer.append(sparse)
    with_indices = model([helper.make_node("Add", ["x", "w"], ["y"])])
    values = numpy_helper.from_array(np.ones(4, np.float32), "values")
    with_indices.graph.sparse_initializer.append(SparseTensorProto(values=values, indices=tensor, dims=[4]))
    sparse_constant = NodeProto(op_type="Constant", output=["w"])
    sparse_constant.attribute.append(
        AttributeProto(name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    )
    sparse_list = NodeProto(op_type="Constant", output=["w"])
    sparse_list.attribute.append(
        AttributeProto(name="all", type=AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse])
    )
    default = function_with(numpy_helper.from_array(np.ones(4, np.float32), "w"))
    default.attribute_proto.append(AttributeProto(name="d", type=AttributeProto.TENSOR, t=tensor))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    nested = branch(nodes=[*branches(branch(tensor))[:1], _nested_if(tensor)])
    call = helper.make_node("Shift", ["x"], ["y"], domain="own.functions")
    return {
        "initializer": adding_model(tensor),
        "constant": model([constant, add]),
        "tensors": model([listed]),
        "graphs": model([graphs]),
        "branch": model(branches(branch(tensor))),
        "branch in a branch": model(branches(nested)),
        "loop body": model([_loop(tensor)]),
        "sparse initializer": with_sparse,
        "sparse indices": with_indices,
        "sparse constant": model([sparse_constant, add]),
        "sparse constants": model([sparse_list, add]),
        "function": model([call], functions=(function_with(tensor),)),
        "default of a function": model([call], functions=(default,)),
        "unused function": model([helper.make_node("Identity", ["x"], ["y"])], functions=(function_with(tensor),)),
    }


def _nested_if(tensor: TensorProto) -> NodeProto:
    return helper.make_node("If", ["c"], ["r"], then_branch=branch(tensor), else_branch=branch(tensor))


def _loop(tensor: TensorProto) -> NodeProto:
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "w"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("step", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", 4])],
        [tensor],
    )  # fmt: skip
    return helper.make_node("Loop", ["", "", "x"], ["y"], body=body)


def write(folder: Path, made: ModelProto | bytes, name: str = "model.onnx") -> Path:
    """Write a model into `folder`, which is made, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def write_weights(folder: Path, name: str = "w.bin", count: int = 8) -> None:
    """Write `count` FP32 numbers 0, 1, 2... beside the model."""
    folder.mkdir(parents=True, exist_ok=True)
    np.arange(count, dtype=np.float32).tofile(folder / name)


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    found = b""
    while value >= 0x80:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(number: int, body: bytes) -> bytes:
    """Return a field of bytes with its tag and length."""
    return varint(number << 3 | 2) + varint(len(body)) + body
