"""One ONNX model as every measured server but Penstock loads it: with the options that Penstock uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}


class Model:
    """A session of one intra-op thread that does not spin, and the names that go with it."""

    def __init__(self, path: str) -> None:
        """Load the file at `path`, which has one input."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 4
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = session.get_inputs()[0].name
        self.outputs = [(output.name, DATATYPES[output.type]) for output in session.get_outputs()]
        self._names = [name for name, _ in self.outputs]
        self._run = session.run

    def __call__(self, array: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Return the outputs for the input `array`."""
        outputs: list[np.ndarray[Any, Any]] = self._run(self._names, {self.input: array})
        return outputs
