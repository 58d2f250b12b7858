"""The three models, written by the benchmark itself: once for each state of this file, then taken from the cache."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from e2e.cluster.places import CACHE, fingerprint

FOLDER = CACHE / "bench" / "models"
IMAGE = (3, 96, 96)
MLP = (784, 512, 512, 10)
# Output channels and stride of each 3x3 convolution.
LAYERS = ((16, 2), (32, 1), (64, 2), (64, 1), (96, 2), (128, 1))

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model with a row to ask it. `mflop` is what one row takes: multiplications and additions of products."""

    name: str
    path: Path
    row: Array
    mflop: float
    text: str


def write_models() -> dict[str, ModelFile]:
    """Return the models by name, written first where they are missing."""
    libraries = [f"{name} {version(name)}" for name in ("numpy", "onnx", "scikit-learn", "skl2onnx")]
    folder = FOLDER / fingerprint(Path(__file__), *libraries)
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    mlp_row = generator.random((1, MLP[0]), np.float32)
    image = generator.random((1, *IMAGE), np.float32)
    products = sum(before * after for before, after in pairwise(MLP))
    iris = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
    made = (
        ModelFile("iris", folder / "iris.onnx", iris, 0.0, "random forest of 100 trees on 4 numbers"),
        ModelFile("mlp", folder / "mlp.onnx", mlp_row, 2e-6 * products, f"MLP {'-'.join(map(str, MLP))}"),
        ModelFile("conv", folder / "conv.onnx", image, 2e-6 * _conv_products(),
                  f"convnet of {len(LAYERS)} 3x3 convolutions on {'x'.join(map(str, IMAGE))}"),
    )  # fmt: skip
    for model, make in zip(made, (_forest, _mlp, _conv), strict=True):
        if not model.path.exists():
            part = model.path.with_suffix(".part")
            part.write_bytes(make())
            part.rename(model.path)
    return {model.name: model for model in made}


def _forest() -> bytes:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = load_iris(return_X_y=True)
    forest = RandomForestClassifier(100, random_state=0).fit(rows, labels)
    exported = to_onnx(forest, rows[:1].astype(np.float32), options={id(forest): {"zipmap": False}})
    return bytes(exported.SerializeToString())


def _mlp() -> bytes:
    generator = np.random.default_rng(1)
    nodes: list[Any] = []
    weights: list[Any] = []
    last = "x"
    for index, (before, after) in enumerate(pairwise(MLP)):
        _add_weight(weights, f"w{index}", generator.normal(0, (2 / before) ** 0.5, (before, after)))
        _add_weight(weights, f"b{index}", generator.normal(0, 0.1, after))
        _add_node(nodes, "Gemm", [last, f"w{index}", f"b{index}"], f"h{index}")
        last = f"h{index}"
        if after != MLP[-1]:
            _add_node(nodes, "Relu", [last], f"r{index}")
            last = f"r{index}"
    _add_node(nodes, "Softmax", [last], "probabilities")
    return _graph(nodes, weights, ("x", ["n", MLP[0]]), ("probabilities", ["n", MLP[-1]]))


def _conv() -> bytes:
    generator = np.random.default_rng(2)
    nodes: list[Any] = []
    weights: list[Any] = []
    last, channels = "x", IMAGE[0]
    for index, (after, stride) in enumerate(LAYERS):
        _add_weight(weights, f"w{index}", generator.normal(0, (2 / (9 * channels)) ** 0.5, (after, channels, 3, 3)))
        _add_weight(weights, f"b{index}", generator.normal(0, 0.1, after))
        _add_node(nodes, "Conv", [last, f"w{index}", f"b{index}"], f"h{index}", kernel_shape=[3, 3],
                  strides=[stride, stride], pads=[1, 1, 1, 1])  # fmt: skip
        _add_node(nodes, "Relu", [f"h{index}"], f"r{index}")
        last, channels = f"r{index}", after
    _add_node(nodes, "GlobalAveragePool", [last], "pooled")
    _add_node(nodes, "Flatten", ["pooled"], "flat")
    _add_weight(weights, "w", generator.normal(0, (1 / channels) ** 0.5, (channels, 10)))
    _add_weight(weights, "b", generator.normal(0, 0.1, 10))
    _add_node(nodes, "Gemm", ["flat", "w", "b"], "logits")
    _add_node(nodes, "Softmax", ["logits"], "probabilities")
    return _graph(nodes, weights, ("x", ["n", *IMAGE]), ("probabilities", ["n", 10]))


def _conv_products() -> int:
    total, channels, size = 0, IMAGE[0], IMAGE[1]
    for after, stride in LAYERS:
        size //= stride
        total += 9 * channels * after * size * size
        channels = after
    return total + channels * 10


def _add_weight(weights: list[Any], name: str, values: Array) -> None:
    from onnx import numpy_helper

    weights.append(numpy_helper.from_array(values.astype(np.float32), name))


def _add_node(nodes: list[Any], kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
    from onnx import helper

    nodes.append(helper.make_node(kind, inputs, [output], **attributes))


def _graph(nodes: list[Any], weights: list[Any], takes: tuple[str, Any], gives: tuple[str, Any]) -> bytes:
    from onnx import TensorProto, checker, helper

    graph = helper.make_graph(
        nodes, "bench",
        [helper.make_tensor_value_info(takes[0], TensorProto.FLOAT, takes[1])],
        [helper.make_tensor_value_info(gives[0], TensorProto.FLOAT, gives[1])],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
