"""From a fitted scikit-learn classifier to an ONNX file that a model server can take, and proof that they agree."""

from __future__ import annotations

import time
import warnings
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]

OPSET = 17
"""ONNX operator set: old enough for every current server."""


class ExportError(Exception):
    """The exported file does not do what the trained model does."""


def export(classifier: Any, features: int, input_name: str = "x") -> bytes:
    """The classifier as ONNX: input `input_name` FP32 [-1, features], outputs `label` and `probabilities`.

    Without `zipmap` off the probabilities would be a list of dictionaries, which no tensor protocol can carry.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        # skl2onnx reads attributes of SVC that scikit-learn 1.9 deprecates; goes once skl2onnx no longer does.
        warnings.filterwarnings("ignore", "Attribute `prob[AB]_` was deprecated", FutureWarning)
        model = to_onnx(
            classifier,
            initial_types=[(input_name, FloatTensorType([None, features]))],
            options={"zipmap": False},
            target_opset=OPSET,
            # ONNX Runtime tidies the graph on loading, in a fraction of the time that skl2onnx takes for it.
            model_optim=False,
        )
    return bytes(model.SerializeToString())


def predict(model: bytes, rows: Rows) -> Labels:
    """The labels that the exported model gives, by ONNX Runtime on one thread."""
    session = _session(model)
    labels: Labels = session.run(["label"], {session.get_inputs()[0].name: rows})[0]
    return labels


def accuracy(model: bytes, rows: Rows, labels: Labels) -> float:
    """The exported model's share of right answers, 0 to 1."""
    return float(np.mean(predict(model, rows) == labels))


def check_agreement(classifier: Any, model: bytes, rows: Rows) -> None:
    """Raise ExportError unless the exported model answers every row as the trained one does."""
    differing = int(np.sum(predict(model, rows) != classifier.predict(rows)))
    if differing:
        raise ExportError(
            f"the exported model answers {differing} of {len(rows)} rows differently from the trained one; "
            "look at the versions of scikit-learn and skl2onnx"
        )


def median_seconds(model: bytes, rows: Rows, runs: int = 200) -> float:
    """Median time in seconds of an inference on one row, on one thread; takes the rows in turn."""
    session = _session(model)
    name = session.get_inputs()[0].name
    times = []
    for run in range(runs):
        at = run % len(rows)
        start = time.perf_counter()
        session.run(None, {name: rows[at : at + 1]})
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
