"""What was predicted, read from another server's answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from penstock_runtime.log import event
from penstock_runtime.protocol.answer import Answer
from penstock_runtime.protocol.binary_data import read_header_length
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.server.agent import tfserving
from penstock_runtime.server.agent.paths import Inference
from penstock_runtime.server.compression import decoded
from penstock_runtime.server.feedback.ids import Prediction
from penstock_runtime.server.feedback.judge import Judge
from penstock_runtime.server.http import LENGTH_HEADER
from penstock_runtime.server.settings import Feedback, SettingsError

if TYPE_CHECKING:
    from penstock_runtime.server.agent.messages import InferAnswer

logger = logging.getLogger(__name__)

# Bytes of an answer, decompressed. The id stands before the body, so reading delays the answer, and all others that
# the event loop has: some 12 us per KiB of numbers in JSON. An id holds 32 predictions at most.
MAX_BYTES = 2**18
_NOTHING = ModelSchema((), ())


class Reading(NamedTuple):
    """Rows of an answer, and what each predicts (nothing where that cannot be told)."""

    rows: int
    predictions: Sequence[Prediction]


class Reader:
    """Reads answers of one model.

    Which output decides is chosen as by a server that knows its model: from `schema` if the upstream tells it,
    else from the outputs that the answer has.
    """

    def __init__(self, feedback: Feedback) -> None:
        """Judge by `feedback`."""
        self.schema: ModelSchema | None = None
        self.set_feedback(feedback)

    def set_feedback(self, feedback: Feedback) -> None:
        """Judge by `feedback` from now on."""
        self._feedback = feedback
        self._complained = False
        self._named = feedback.output
        self._specs: tuple[TensorSpec, ...] | None = None
        self._judge = self.labels_only

    @property
    def labels_only(self) -> Judge:
        """What compares labels, whatever the outputs are."""
        return Judge(_NOTHING, replace(self._feedback, output=None))

    async def read(self, inference: Inference, body: bytes, headers: Mapping[bytes, bytes]) -> Reading:
        """Return what an answer with a status of success says; one row without prediction if it cannot be read."""
        if len(body) > MAX_BYTES:
            return Reading(1, ())
        try:
            if (coding := headers.get(b"content-encoding")) is not None:
                body = b"".join(await decoded(body, coding.lower(), MAX_BYTES))
            if inference.protocol == "oip":
                length = headers.get(LENGTH_HEADER)
                return self._read_oip(Answer(body, None if length is None else read_header_length(length)))
            return self._read_columns(self._named_columns(tfserving.read_columns(body, inference.verb)))
        except Exception as error:  # noqa: BLE001 - whatever an upstream answers passes; who waits for it must not suffer
            self._complain(str(error))
            return Reading(1, ())

    def read_message(self, inference: Inference, payload: bytes) -> Reading:
        """The same of an answer over gRPC."""
        # Who has no gRPC needs no protobuf.
        from penstock_runtime.server.agent import messages

        if len(payload) > MAX_BYTES:
            return Reading(1, ())
        try:
            if inference.protocol == "oip":
                return self._read_oip(messages.InferAnswer(payload))
            if inference.verb != "predict":
                return self._read_columns(messages.read_results(payload, inference.verb))
            answer = messages.PredictAnswer(payload)
            return self._read_chosen(answer.rows, answer.specs, answer.read)
        except Exception as error:  # noqa: BLE001 - as above
            self._complain(str(error))
            return Reading(1, ())

    def _read_oip(self, answer: Answer | InferAnswer) -> Reading:
        told = () if self.schema is None else self.schema.outputs
        judge = self._judge_of(told or answer.specs)
        chosen = next((spec for spec in answer.specs if spec.name == judge.output), None)
        of_rows = chosen or next(iter(answer.specs), None)
        rows = of_rows.shape[0] if of_rows is not None and of_rows.shape else 1
        if chosen is None:
            # A request need not ask for the output that decides.
            return Reading(rows, ())
        return Reading(rows, judge.decide(answer.read((chosen.name,))[chosen.name].array, rows))

    def _named_columns(self, columns: tfserving.Columns) -> tfserving.Columns:
        if self._named is None or list(columns.values) != [tfserving.UNNAMED]:
            return columns
        # The answer does not say its name, so it is the one that is meant.
        return tfserving.Columns(columns.rows, {self._named: columns.values[tfserving.UNNAMED]})

    def _read_columns(self, columns: tfserving.Columns) -> Reading:
        specs = tfserving.specs_of(columns)
        return self._read_chosen(columns.rows, specs, lambda name: tfserving.array_of(columns.values[name]))

    def _read_chosen(
        self, rows: int, specs: tuple[TensorSpec, ...], array_of: Callable[[str], np.ndarray[Any, Any]]
    ) -> Reading:
        judge = self._judge_of(specs)
        if judge.output is None:
            return Reading(rows, ())
        return Reading(rows, judge.decide(array_of(judge.output), rows))

    def _judge_of(self, specs: tuple[TensorSpec, ...]) -> Judge:
        # Nothing of the shapes matters for the choice, and they change with the rows.
        known = tuple(replace(spec, shape=None) for spec in specs)
        if known != self._specs:
            self._specs = known
            try:
                self._judge = Judge(ModelSchema((), known), self._feedback)
            except SettingsError as error:
                self._judge = self.labels_only
                self._complain(str(error))
        return self._judge

    def _complain(self, error: str) -> None:
        # Once: it may be so of every answer.
        if not self._complained:
            self._complained = True
            event(logger, "what an answer predicts cannot be told; labels for such ones cannot be compared",
                  level=logging.ERROR, error=error[:300])  # fmt: skip
