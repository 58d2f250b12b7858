"""The models of the stories: real ones, trained on iris, each small enough for a ConfigMap (1 MiB)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from examples.onnx_export import accuracy, export

FEATURES = 4
INPUT = "x"
LAYERS, WIDTH = 900, 256
"""Size of the slow model's detour: some 60 million multiplications a row, over one shared matrix."""


@dataclass(frozen=True)
class Iris:
    """Rows nobody was trained on, with their true labels: what users of the stories send."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    rows: NDArray[np.float32]
    labels: NDArray[np.int64]


@cache
def iris() -> Iris:
    """Half to learn from, half to serve."""
    data = load_iris()
    split = train_test_split(
        data.data.astype(np.float32), data.target, test_size=0.5, stratify=data.target, random_state=3
    )
    train, rows, train_labels, labels = split
    return Iris(train, train_labels, rows, labels)


@cache
def model(name: str) -> bytes:
    """The file of a model of the stories. KeyError for a name that no story knows."""
    return _MAKERS[name]()


def _good_v1() -> bytes:
    return export(_fitted(RandomForestClassifier(n_estimators=20, max_depth=2, random_state=0)), FEATURES, INPUT)


def _good_v2() -> bytes:
    """At least as good as v1 on what is served, so that whoever rolls it back is wrong."""
    made = export(_fitted(LogisticRegression(max_iter=1000)), FEATURES, INPUT)
    data = iris()
    assert accuracy(made, data.rows, data.labels) >= accuracy(model("good-v1"), data.rows, data.labels)
    return made


def _scrambled() -> bytes:
    """Learned from labels that were shuffled: it guesses."""
    data = iris()
    shuffled = np.random.default_rng(1).permutation(data.train_labels)
    forest = RandomForestClassifier(n_estimators=20, max_depth=2, random_state=0)
    return export(forest.fit(data.train, shuffled), FEATURES, INPUT)


def _slow() -> bytes:
    """Right, and slow for a real reason: the row goes through hundreds of dense layers that change nothing."""
    proto = onnx.load_from_string(model("good-v2"))
    graph = proto.graph
    rng = np.random.default_rng(2)
    graph.initializer.extend(
        [
            numpy_helper.from_array(rng.normal(size=(FEATURES, WIDTH)).astype(np.float32), "entry"),
            numpy_helper.from_array((rng.normal(size=(WIDTH, WIDTH)) / WIDTH).astype(np.float32), "layer"),
            numpy_helper.from_array(np.array([0], np.float32), "nothing"),
        ]
    )
    nodes = [helper.make_node("MatMul", [INPUT, "entry"], ["deep0"])]
    nodes += [helper.make_node("MatMul", [f"deep{i}", "layer"], [f"deep{i + 1}"]) for i in range(LAYERS)]
    nodes.append(helper.make_node("ReduceMean", [f"deep{LAYERS}"], ["mean"], axes=[1], keepdims=1))
    nodes.append(helper.make_node("Mul", ["mean", "nothing"], ["detour"]))
    nodes.append(helper.make_node("Add", [INPUT, "detour"], ["slowed"]))
    _rename_input(graph, INPUT, "slowed")
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return bytes(proto.SerializeToString())


def _renamed() -> bytes:
    """As good, but its input has another name: clients of v1 cannot use it."""
    return export(_fitted(LogisticRegression(max_iter=1000)), FEATURES, "features")


def _doubles() -> bytes:
    """As good, but it takes FP64, so that the server answers 400 to everybody who sends FP32."""
    proto = onnx.load_from_string(model("good-v2"))
    graph = proto.graph
    graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    _rename_input(graph, INPUT, "as_float")
    graph.node.insert(0, helper.make_node("Cast", [INPUT], ["as_float"], to=TensorProto.FLOAT))
    return bytes(proto.SerializeToString())


def _corrupt() -> bytes:
    """The first half of a good file."""
    whole = model("good-v2")
    return whole[: len(whole) // 2]


def _fitted(classifier: Any) -> Any:
    data = iris()
    return classifier.fit(data.train, data.train_labels)


def _rename_input(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Every node that read `old` reads `new`."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


_MAKERS = {
    "good-v1": _good_v1,
    "good-v2": _good_v2,
    "scrambled": _scrambled,
    "slow": _slow,
    "renamed": _renamed,
    "doubles": _doubles,
    "corrupt": _corrupt,
}
NAMES = tuple(_MAKERS)
