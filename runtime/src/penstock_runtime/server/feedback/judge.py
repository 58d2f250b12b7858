"""From a model's outputs to decisions, and from labels to right or wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.server.feedback.ids import Prediction
from penstock_runtime.server.settings import Feedback, SettingsError

Label = str | int | float | bool


class Verdict(NamedTuple):
    """What a label says of one row: right or wrong (None: undecided), absolute error, the class it is."""

    correct: bool | None
    error: float | None
    label: str | None


class Judge:
    """Takes decisions from one output and compares labels with them.

    The output is `feedback.output`, else "label", else the first text or integer output, else the first.
    Integers and texts are classes as they are. Of numbers: argmax over the last axis (`argmax`, the default
    where there are several a row), class 1 if the probability reaches the threshold (`threshold`; of two
    columns the second counts), else the number itself.
    """

    def __init__(self, schema: ModelSchema, feedback: Feedback) -> None:
        """Raises SettingsError if the configured output does not exist."""
        self._feedback = feedback
        self._spec = _choose(schema, feedback.output)
        self.output = self._spec.name if self._spec else None
        self.window = feedback.window

    def decide(self, output: np.ndarray[Any, Any], rows: int) -> Sequence[Prediction]:
        """Return one decision a row, or nothing where the output does not give one."""
        if self._spec is None or rows == 0 or (output.shape[0] if output.ndim else 1) != rows:
            return ()
        kind = output.dtype.kind
        if kind in "biuO":
            if output.size != rows:
                return ()
            values: list[Any] = output.ravel().tolist()
            return [int(value) for value in values] if kind == "b" else values
        return self._decide_numbers(output.reshape(rows, -1))

    def _decide_numbers(self, table: np.ndarray[Any, Any]) -> Sequence[Prediction]:
        width = table.shape[1]
        decision = self._feedback.decision
        if decision == "threshold":
            if width > 2:
                return ()
            over: list[int] = (table[:, -1] >= self._feedback.threshold).astype(np.int64).tolist()
            return over
        if decision != "tolerance" and width > 1:
            best: list[int] = table.argmax(axis=1).tolist()
            return best
        if width != 1:
            return ()
        numbers = [float(value) for value in table[:, 0].tolist()]
        return numbers if all(map(math.isfinite, numbers)) else ()

    def compare(self, prediction: Prediction, label: Label) -> Verdict | None:
        """Return what `label` says of `prediction`; None if they cannot be compared."""
        if type(prediction) is float:
            if isinstance(label, (str, bool)):
                return None
            return self.of_error(prediction - label)
        if type(prediction) is str:
            text = label if type(label) is str else str(label)
        elif type(label) is str:
            text = label
        else:
            text = str(int(label)) if label == int(label) else str(label)
        return Verdict(text == str(prediction), None, text)

    def of_error(self, error: float) -> Verdict | None:
        """Return what an error (prediction minus truth) says; None if it is no finite number."""
        if not math.isfinite(error):
            return None
        tolerance = self._feedback.tolerance
        return Verdict(None if tolerance is None else abs(error) <= tolerance, abs(error), None)


def _choose(schema: ModelSchema, name: str | None) -> TensorSpec | None:
    outputs = schema.outputs
    if name is not None:
        for spec in outputs:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in outputs)
        if name != "label":  # the documented default must not break a model without labels
            raise SettingsError(f"feedback.output '{name}' is no output of the model; it gives {known}")
    for spec in outputs:
        if spec.name == "label":
            return spec
    for spec in outputs:
        if spec.datatype == "BYTES" or "INT" in spec.datatype:
            return spec
    return outputs[0] if outputs else None
