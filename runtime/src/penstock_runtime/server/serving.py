"""One model being served: decode, run, encode, sign, count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from penstock_runtime.engine.executor import Executor
from penstock_runtime.engine.line import Ran
from penstock_runtime.protocol.decode import Decoder, InferRequest
from penstock_runtime.protocol.encode import encode_response
from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.protocol.synthetic import synthetic_request
from penstock_runtime.server.feedback.ids import Issuer, Prediction
from penstock_runtime.server.feedback.judge import Judge
from penstock_runtime.server.http import BINARY_TYPE, JSON_TYPE, Header
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.statistics import Statistics

LENGTH_HEADER = b"inference-header-content-length"


# Body, headers, content type.
Answer = tuple[bytes, tuple[Header, ...], Header]
# What a run gave, the answer made of it, what was predicted, and the seconds that all but the run took.
_Answered = tuple[Ran, Answer, Sequence[Prediction], float]


@dataclass(eq=False)
class Serving:
    """A loaded version of a model with all that answering for it takes.

    `config`: its configuration as the protocol shows it. `timeout`: seconds a request may wait and run.
    `in_flight`: requests that are being answered by it.
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

    def __post_init__(self) -> None:
        """Prepare what every request needs."""
        self._decoder = Decoder(self.schema)
        self._datatypes = {spec.name: spec.datatype for spec in self.schema.outputs}
        self.revision_header: Header = (b"penstock-revision", self.metrics.revision.encode())

    def count_run(self, rows: int, seconds: float) -> None:
        """Count one run of the model, which may be one of several requests."""
        self.metrics.batch_size.observe(rows)
        self.statistics.ran(rows, seconds)

    async def infer(self, body: bytes, header_length: int | None = None) -> Answer:
        """Return the answer to a request whose first `header_length` bytes are JSON; raises ProtocolError."""
        begun = time.perf_counter()
        request = self._decoder.decode(body, header_length)
        decoding = time.perf_counter() - begun
        ran, answer, predictions, encoding = await self._answer(request)
        self.statistics.answered(request.rows, ran, decoding, encoding)
        metrics = self.metrics
        metrics.inference_seconds.observe(ran.ran)
        metrics.queue_seconds.observe(ran.queued)
        metrics.count_predictions(predictions)
        return answer

    async def rehearse(self) -> None:
        """Go the whole way once with a synthetic request, uncounted, so that the first user need not."""
        with suppress(ProtocolError):
            await self._answer(self._decoder.decode(*synthetic_request(self.schema)))

    async def _answer(self, request: InferRequest) -> _Answered:
        wanted = request.outputs
        decided = self.judge.output
        # The decision must be seen even by a request that does not ask for it.
        fetched = wanted if decided is None or decided in wanted else (*wanted, decided)
        ran = await self.executor.run(fetched, request.inputs, self.timeout)
        begun = time.perf_counter()
        predictions: Sequence[Prediction] = ()
        if decided is not None:
            predictions = self.judge.decide(ran.outputs[fetched.index(decided)], request.rows)
        datatypes = self._datatypes
        response, length = encode_response(
            self.name,
            self.version,
            request.id,
            [(name, datatypes[name], array) for name, array in zip(wanted, ran.outputs, strict=False)],
            request.binary,
        )
        issued = self.issuer.issue(time.time(), request.rows, predictions)
        headers: tuple[Header, ...] = (self.revision_header, (b"penstock-prediction-id", issued))
        if length is None:
            answer: Answer = response, headers, JSON_TYPE
        else:
            answer = response, (*headers, (LENGTH_HEADER, b"%d" % length)), BINARY_TYPE
        return ran, answer, predictions, time.perf_counter() - begun
