"""One model being served: decode, run, encode, sign, count."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from penstock_runtime.engine.executor import Executor
from penstock_runtime.engine.job import Ran, Together
from penstock_runtime.engine.session import Tensor
from penstock_runtime.protocol.decode import Decoder
from penstock_runtime.protocol.encode import encode_response
from penstock_runtime.protocol.encode_rows import RowTexts, encode_rows
from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.protocol.synthetic import synthetic_request
from penstock_runtime.server.feedback.ids import Issuer, Prediction
from penstock_runtime.server.feedback.judge import Judge
from penstock_runtime.server.http import BINARY_TYPE, JSON_TYPE, LENGTH_HEADER, Header
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.observing.observed import OBSERVED
from penstock_runtime.server.statistics import Statistics, Work

# Body, headers, content type.
Answer = tuple[bytes, tuple[Header, ...], Header]


@dataclass(eq=False)
class Serving:
    """A loaded version of a model with all that answering for it takes.

    `config`: its configuration as the protocol shows it. `timeout`: seconds a request may wait and run.
    `in_flight`: requests that are being answered by it; `calls`: others, whose thread is not the event loop's.
    """

    name: str
    version: str
    schema: ModelSchema
    executor: Executor
    judge: Judge
    issuer: Issuer
    metrics: Metrics
    statistics: Statistics
    config: bytes
    timeout: float
    in_flight: int = 0
    calls: set[object] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Prepare what every request needs."""
        self._decoder = Decoder(self.schema)
        self.decode = self._decoder.decode
        self._datatypes = {spec.name: spec.datatype for spec in self.schema.outputs}
        self.revision_header: Header = (b"penstock-revision", self.metrics.revision.encode())

    def count_run(self, rows: int, seconds: float) -> None:
        """Count one run of the model, which may be one of several requests."""
        self.metrics.batch_size.observe(rows)
        self.statistics.ran(rows, seconds)

    def describe_statistics(self) -> dict[str, Any]:
        """Return its entry of the statistics extension."""
        self.metrics.settle()
        return self.statistics.describe(self.name, self.version)

    async def infer(
        self,
        body: bytes,
        header_length: int | None = None,
        *,
        shadow: bool = False,
        outputs: dict[str, Tensor] | None = None,
    ) -> Answer:
        """Return the answer to a request whose first `header_length` bytes are JSON; raises ProtocolError.

        `shadow`: it is a copy of another server's request, which is not counted as one of ours, and whose
        answer is for comparing: all in binary form. `outputs` is filled with what the answer was made of.
        """
        begun = time.perf_counter()
        request = self._decoder.decode(body, header_length)
        decoding = time.perf_counter() - begun
        seen = OBSERVED.get()
        if seen is not None:
            seen.request_id = request.id
        if shadow:
            request = request._replace(binary=frozenset(request.outputs))
        fetched = self.fetched(request)
        ran = await self.executor.run(fetched, request.inputs, self.timeout)
        if seen is not None:
            seen.asked, seen.ran = begun + decoding, ran
        if outputs is not None:
            outputs.update(zip(request.outputs, ran.outputs, strict=False))
        return self.encode(request, fetched, ran)[0] if shadow else self.finish(request, fetched, ran, decoding)

    def finish(self, request: InferRequest, fetched: Sequence[str], ran: Ran, decoding: float) -> Answer:
        """Return the answer to `request`, of which `ran` gave the outputs `fetched`, and count it."""
        begun = time.perf_counter()
        answer, predictions = self.encode(request, fetched, ran)
        self.count_answer(request.rows, ran, predictions, decoding, time.perf_counter() - begun)
        return answer

    def fetched(self, request: InferRequest) -> tuple[str, ...]:
        """Return the outputs to run for: the decision must be seen even by a request that does not ask for it."""
        wanted, decided = request.outputs, self.judge.output
        return wanted if decided is None or decided in wanted else (*wanted, decided)

    def decide(self, fetched: Sequence[str], ran: Ran, rows: int) -> Sequence[Prediction]:
        """Return what was predicted, one a row, if the judge can tell."""
        judge = self.judge
        decided = judge.output
        # The judge may have been exchanged for one with another output since the run began.
        if decided is None or decided not in fetched:
            return ()
        return judge.decide(ran.outputs[fetched.index(decided)], rows)

    def tensors(self, request: InferRequest, ran: Ran) -> Iterable[tuple[str, str, Tensor]]:
        """Return the outputs that `request` asks for, each as name, datatype, array."""
        names = request.outputs
        return zip(names, map(self._datatypes.__getitem__, names), ran.outputs, strict=False)

    def count_answer(
        self, rows: int, ran: Ran, predictions: Sequence[Prediction], decoding: float, encoding: float
    ) -> None:
        """Count an answered request of `rows` rows; `decoding` and `encoding` are seconds. On the event loop."""
        self.statistics.answered(rows, ran, decoding, encoding)
        metrics = self.metrics
        metrics.inference_seconds.observe(ran.ran)
        metrics.queue_seconds.observe(ran.queued)
        metrics.count_predictions(predictions)

    def count_alone(
        self, seconds: float, rows: int, ran: Ran, predictions: Sequence[Prediction], decoding: float, encoding: float
    ) -> None:
        """Count an answered request that took `seconds` in all, and the run that was for it only."""
        self.count_run(ran.rows, ran.ran)
        self.count_whole(seconds, rows, ran, predictions, decoding, encoding)

    def count_whole(
        self, seconds: float, rows: int, ran: Ran, predictions: Sequence[Prediction], decoding: float, encoding: float
    ) -> None:
        """Count an answered request that took `seconds` in all. On the event loop."""
        self.metrics.requests["ok"] += 1
        self.metrics.request_seconds.observe(seconds)
        self.statistics.ended(seconds, True)
        self.count_answer(rows, ran, predictions, decoding, encoding)

    def count_together(
        self,
        seconds: Sequence[float],
        queued: Sequence[float],
        together: Together,
        predictions: Sequence[Prediction],
        work: Work,
    ) -> None:
        """Count answered requests of one row each, which were run together, by the seconds of each.

        `work` is that for all of them. On the event loop.
        """
        metrics, count = self.metrics, len(seconds)
        metrics.requests["ok"] += count
        metrics.request_seconds.observe_each(seconds)
        metrics.queue_seconds.observe_each(queued)
        metrics.inference_seconds.observe_times(together.seconds, count)
        self.statistics.answered_together(count, sum(seconds), sum(queued), together, work)
        metrics.count_predictions(predictions)

    async def rehearse(self) -> None:
        """Go the whole way once with a synthetic request, uncounted, so that the first user need not."""
        with suppress(ProtocolError):
            request = self._decoder.decode(*synthetic_request(self.schema))
            fetched = self.fetched(request)
            self.encode(request, fetched, await self.executor.run(fetched, request.inputs, self.timeout))

    async def try_out(self, body: bytes) -> bytes:
        """Return the answer to a request in JSON that counts nowhere and waits for nobody; raises ProtocolError."""
        request = self._decoder.decode(body)
        if request.binary:
            raise InvalidRequest("binary outputs cannot be shown; ask for them in JSON")
        ran = await self.executor.run_apart(request.outputs, request.inputs, self.timeout)
        return encode_response(self.name, self.version, request.id, self.tensors(request, ran))[0]

    def encode_rows(
        self, wanted: Sequence[str], fetched: Sequence[str], together: Together
    ) -> tuple[RowTexts, Sequence[Prediction]]:
        """Return the responses with the outputs `wanted` of each row of a run for `fetched`, and what was predicted."""
        predictions: Sequence[Prediction] = ()
        if self.judge.output in fetched:
            predictions = self.judge.decide(together.outputs[fetched.index(self.judge.output)], together.rows)
        outputs = zip(wanted, map(self._datatypes.__getitem__, wanted), together.outputs, strict=False)
        return encode_rows(self.name, self.version, outputs), predictions

    def encode(self, request: InferRequest, fetched: Sequence[str], ran: Ran) -> tuple[Answer, Sequence[Prediction]]:
        """Return the answer to `request`, of which `ran` gave the outputs `fetched`, and what was predicted."""
        predictions = self.decide(fetched, ran, request.rows)
        response, length = encode_response(
            self.name, self.version, request.id, self.tensors(request, ran), request.binary
        )
        issued = self.issuer.issue(time.time(), request.rows, predictions)
        headers: tuple[Header, ...] = (self.revision_header, (b"penstock-prediction-id", issued))
        if length is None:
            answer: Answer = response, headers, JSON_TYPE
        else:
            answer = response, (*headers, (LENGTH_HEADER, b"%d" % length)), BINARY_TYPE
        return answer, predictions
