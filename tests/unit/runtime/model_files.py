"""Small real ONNX models for tests: scikit-learn exports and graphs built by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

ECHO_TYPES = {
    "BOOL": TensorProto.BOOL, "BYTES": TensorProto.STRING, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
}  # fmt: skip


def write_all(folder: Path) -> None:
    """Write every model, each as <name>/model.onnx or a broken file."""
    write_iris(folder)
    write_echo(folder / "echo")
    write_slow(folder / "slow")
    write_patient(folder / "patient")
    write_scaled(folder / "half", TensorProto.FLOAT16)
    write_scaled(folder / "scaled", TensorProto.FLOAT)
    write_brain(folder / "brain")
    write_picky(folder / "picky")
    (folder / "corrupt").mkdir()
    (folder / "corrupt" / "model.onnx").write_bytes(b"\x08\x08this is not a model")


def write_iris(folder: Path) -> None:
    """Classifiers with integer and text labels, with a ZipMap (which cannot be served), and a regression."""
    x, y = load_iris(return_X_y=True)
    sample = x[:1].astype(np.float32)
    names = np.array(["setosa", "versicolor", "virginica"])
    for name, labels, zipmap in (("iris", y, False), ("text", names[y], False), ("zipmap", y, True)):
        model = RandomForestClassifier(10, random_state=0).fit(x, labels)
        exported = to_onnx(model, sample, options={id(model): {"zipmap": zipmap}})
        _save(exported, folder / name)
    regression = RandomForestRegressor(10, random_state=0).fit(x, x[:, 3])
    _save(to_onnx(regression, sample), folder / "regression")


def write_echo(folder: Path) -> None:
    """Each input comes back as the output of its name with "out_" before it; shapes [-1, 2]."""
    nodes, inputs, outputs = [], [], []
    for name, kind in ECHO_TYPES.items():
        nodes.append(helper.make_node("Identity", [name], [f"out_{name}"]))
        inputs.append(helper.make_tensor_value_info(name, kind, [None, 2]))
        outputs.append(helper.make_tensor_value_info(f"out_{name}", kind, [None, 2]))
    write_graph(folder, nodes, inputs, outputs)


def write_slow(folder: Path) -> None:
    """A loop of matrix products, 8 and as many as the input `n` says: as slow as a test wants it."""
    nodes, constants = _busy(8)
    inputs = [helper.make_tensor_value_info("n", TensorProto.INT64, [None])]
    outputs = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [])]
    write_graph(folder, nodes, inputs, outputs, constants)


def write_patient(folder: Path) -> None:
    """By row: "double" is twice x [-1, -1], "picked" is 10 times i [-1], which must be less than 8.

    The largest n [-1] says how long a run takes. Rows see nothing else of each other.
    """
    nodes, constants = _busy(0)
    nodes += [
        helper.make_node("Mul", ["x", "mean"], ["once"]),
        helper.make_node("Add", ["once", "once"], ["double"]),
        helper.make_node("Gather", ["table", "i"], ["picked"]),
    ]
    constants.append(numpy_helper.from_array(np.arange(0, 80, 10, dtype=np.int64), "table"))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None]),
        helper.make_tensor_value_info("i", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [None]),
    ]
    outputs = [
        helper.make_tensor_value_info("double", TensorProto.FLOAT, [None, None]),
        helper.make_tensor_value_info("picked", TensorProto.INT64, [None]),
    ]
    write_graph(folder, nodes, inputs, outputs, constants)


def _busy(least_loops: int) -> tuple[list, list]:  # type: ignore[type-arg]
    """Nodes and constants that keep a thread busy as long as the largest of "n" says, and give "mean" = 1."""
    weights = numpy_helper.from_array(np.full((256, 256), 1 / 256, np.float32), "w")
    start = numpy_helper.from_array(np.ones((256, 256), np.float32), "start")
    least = numpy_helper.from_array(np.array(least_loops, np.int64), "least")
    true = numpy_helper.from_array(np.array(True), "true")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state_in", "w"], ["state_out"]),
         helper.make_node("Identity", ["go_in"], ["go_out"])],
        "body",
        [helper.make_tensor_value_info("step", TensorProto.INT64, []),
         helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
         helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [256, 256])],
        [helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
         helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [256, 256])],
    )  # fmt: skip
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["most"], keepdims=0),
        helper.make_node("Add", ["most", "least"], ["count"]),
        helper.make_node("Loop", ["count", "true", "start"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end"], ["mean"], keepdims=0),
    ]
    return nodes, [weights, start, true, least]


def write_scaled(folder: Path, kind: int = TensorProto.FLOAT, factor: float = 2.0) -> None:
    """One number a row, from x [-1, 1] to y [-1, 1] = 2 x, or another factor."""
    two = helper.make_tensor("two", kind, [1], [factor])
    write_graph(
        folder,
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        [helper.make_tensor_value_info("x", kind, [None, 1])],
        [helper.make_tensor_value_info("y", kind, [None, 1])],
        [two],
    )


def write_brain(folder: Path) -> None:
    """Takes bfloat16, which cannot be handed over."""
    write_graph(
        folder,
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )


def write_picky(folder: Path) -> None:
    """Puts 4 numbers into a square; its schema allows any count, so any other fails inside the model."""
    shape = numpy_helper.from_array(np.array([2, 2], np.int64), "shape")
    write_graph(
        folder,
        [helper.make_node("Reshape", ["x", "shape"], ["square"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("square", TensorProto.FLOAT, [2, 2])],
        [shape],
    )


def write_graph(folder: Path, nodes: list, inputs: list, outputs: list, constants: list = ()) -> None:  # type: ignore[assignment, type-arg]
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opset = [helper.make_opsetid("", 17)]
    _save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder)


def _save(model: object, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder / "model.onnx")  # type: ignore[arg-type]


def write_factors(folder: Path) -> None:
    """Write models of one number a row: y = factor * x, k = the row's class, which is always 1."""
    for name, factor in (("twice", 2.0), ("nearly", 2.001), ("thrice", 3.0)):
        write_graph(
            folder / name,
            [helper.make_node("Mul", ["x", "factor"], ["y"]),
             helper.make_node("Cast", ["ratio"], ["k"], to=TensorProto.INT64),
             helper.make_node("Div", ["x", "x"], ["ratio"])][::-1],
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1]),
             helper.make_tensor_value_info("k", TensorProto.INT64, [None, 1])],
            [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
        )  # fmt: skip
