"""ModelInfer: each call from its headers to its answer, counted like a request over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import grpc

from penstock_runtime.engine.line import Ran
from penstock_runtime.log import event, origin
from penstock_runtime.protocol.errors import Overloaded, ProtocolError, TimedOut, Unavailable
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.protocol.grpc.codec import MessageDecoder, encode, parse
from penstock_runtime.server.feedback.ids import Prediction
from penstock_runtime.server.grpc.codes import refuse
from penstock_runtime.server.grpc.models import Model, Models
from penstock_runtime.server.grpc.threads import Call, Threads
from penstock_runtime.server.metrics import outcome_of
from penstock_runtime.server.serving import Serving

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Past a request's own time, for the event loop to say so.
_PATIENCE_SECONDS = 5.0
_SHUTTING_DOWN = "the server is shutting down"


class Gone(Exception):  # noqa: N818 - an event more than an error
    """The client does not wait for its answer any more."""


class Inferences:
    """What all ModelInfer calls share."""

    def __init__(self, models: Models, threads: Threads, loop: asyncio.AbstractEventLoop) -> None:
        """Answer by `models`. Runs that are not tiny go to the executors on `loop`, while one of `threads` waits."""
        self.models = models
        self.under_way: set[Call] = set()
        self.closing = False
        self._threads = threads
        self._loop = loop
        self._decoders: WeakKeyDictionary[Serving, MessageDecoder] = WeakKeyDictionary()
        self._running: set[Future[Ran]] = set()

    def admit(self) -> tuple[Call, grpc.RpcMethodHandler[Any, Any]]:
        """Return a call that has arrived and its handler: one that refuses it unread if too many are under way."""
        if len(self.under_way) >= self.models.capacity:
            refusal = _Refusal(self)
            # As a stream, the message need not have come before the call can be answered.
            return refusal, grpc.stream_unary_rpc_method_handler(refusal)
        call = Inference(self)
        return call, grpc.unary_unary_rpc_method_handler(call)

    def decoder(self, serving: Serving) -> MessageDecoder:
        """Return the decoder for a model."""
        decoder = self._decoders.get(serving)
        if decoder is None:
            decoder = self._decoders[serving] = MessageDecoder(serving.schema)
        return decoder

    def run(
        self, serving: Serving, fetched: tuple[str, ...], request: InferRequest, context: grpc.ServicerContext
    ) -> tuple[Ran, bool]:
        """Run the model, here if the request is tiny, and return whether it was.

        Raises TimedOut if the client's or the server's time for it is up, Gone, and what Executor.run raises.
        """
        seconds = min(serving.timeout, context.time_remaining())
        if seconds <= 0:
            raise TimedOut("the client's deadline has passed")
        if not context.is_active():
            raise Gone
        ran = serving.executor.run_here(fetched, request.inputs)
        if ran is not None:
            return ran, True
        with self._threads.waiting():
            return self._run_elsewhere(serving, fetched, request, seconds, context), False

    def _run_elsewhere(
        self,
        serving: Serving,
        fetched: tuple[str, ...],
        request: InferRequest,
        seconds: float,
        context: grpc.ServicerContext,
    ) -> Ran:
        run = serving.executor.run(fetched, request.inputs, seconds)
        try:
            future = asyncio.run_coroutine_threadsafe(run, self._loop)
        except RuntimeError:
            run.close()
            raise Unavailable(_SHUTTING_DOWN) from None
        self._running.add(future)
        try:
            if self.closing or not context.add_callback(partial(_cancel, future)):
                future.cancel()
            return future.result(seconds + _PATIENCE_SECONDS)
        except (CancelledError, TimeoutError):
            if context.is_active():
                raise Unavailable(_SHUTTING_DOWN) from None
            raise Gone from None
        finally:
            self._running.discard(future)

    def on_loop(self, function: Callable[[], T]) -> T:
        """Return what `function` returns on the event loop, and raise what it raises there."""

        async def call() -> T:
            return function()

        coroutine = call()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE_SECONDS)
        except (RuntimeError, CancelledError, TimeoutError):
            coroutine.close()
            raise Unavailable(_SHUTTING_DOWN) from None

    def abandon(self) -> None:
        """Answer whatever still waits for a run, and what comes now, with UNAVAILABLE."""
        self.closing = True
        for future in list(self._running):
            future.cancel()


def _cancel(future: Future[Ran]) -> None:
    future.cancel()


class _Refusal(Call):
    """A call too many."""

    __slots__ = ("_model",)

    def __init__(self, inferences: Inferences) -> None:
        super().__init__(inferences.under_way, refused=True)
        self._model = inferences.models.only()

    def __call__(self, messages: object, context: grpc.ServicerContext) -> bytes:
        if self._model is not None:
            _post_failure(self._model, "rejected", time.perf_counter() - self.began)
        refuse(context, Overloaded())


class Inference(Call):
    """One call. Made where grpcio serves, worked on in one of the threads."""

    __slots__ = ("_counted", "_inferences", "_model", "_serving")

    def __init__(self, inferences: Inferences) -> None:
        """Be under way."""
        super().__init__(inferences.under_way)
        self._inferences = inferences
        # Who sends no message at all can only have meant the only model.
        self._model = inferences.models.only()
        self._serving: Serving | None = None
        self._counted = False

    def __call__(self, payload: bytes, context: grpc.ServicerContext) -> bytes:
        """Return the answer to the message `payload`, or end the call with its error."""
        self.received = True
        error: ProtocolError
        try:
            return self._answer(payload, context)
        except (Gone, grpc.RpcError):
            error, outcome = Unavailable("the client is gone"), "client_error"
        except ProtocolError as failure:
            error, outcome = failure, outcome_of(failure.status)
        except Exception as failure:  # noqa: BLE001 - the protocol wants an answer whatever happens
            event(logger, "unexpected failure", level=logging.ERROR, error=type(failure).__name__,
                  where=origin(failure))  # fmt: skip
            error, outcome = ProtocolError("internal error", status=500), "server_error"
        self._count_failure(outcome)
        if self._serving is not None:
            with suppress(grpc.RpcError):
                context.send_initial_metadata((_revision(self._serving),))
        return refuse(context, error)

    def _answer(self, payload: bytes, context: grpc.ServicerContext) -> bytes:
        inferences = self._inferences
        begun = time.perf_counter()
        message = parse(payload)
        self._model = None
        model = self._model = inferences.models.known(message.model_name)
        serving = self._serving = model.find(message.model_version or None)
        request = inferences.decoder(serving).decode(message)
        decoding = time.perf_counter() - begun
        fetched = serving.fetched(request)
        ran, here = inferences.run(serving, fetched, request, context)
        begun = time.perf_counter()
        predictions = serving.decide(fetched, ran, request.rows)
        answer = encode(serving.name, serving.version, request.id, serving.tensors(request, ran), bool(request.binary))
        issued = serving.issuer.issue(time.time(), request.rows, predictions)
        context.send_initial_metadata((_revision(serving), ("penstock-prediction-id", issued.decode())))
        now = time.perf_counter()
        self._counted = True
        # Before the answer goes out: who has it must find it counted.
        answered = _Answered(request.rows, ran, here, predictions, now - self.began, decoding, now - begun)
        model.metrics.post(partial(_count_answer, serving, answered))
        return answer

    def left(self) -> None:
        """Count it if its client went, or its time was up, before its message had come."""
        super().left()
        if not self._counted:
            self._count_failure("timeout" if self.expired else "client_error")

    def _count_failure(self, outcome: str) -> None:
        self._counted = True
        if self._model is not None:
            _post_failure(self._model, outcome, time.perf_counter() - self.began)


class _Answered(NamedTuple):
    """What is counted of an answered call: `here` tells where the model ran; the rest are seconds."""

    rows: int
    ran: Ran
    here: bool
    predictions: Sequence[Prediction]
    total: float
    decoding: float
    encoding: float


def _revision(serving: Serving) -> tuple[str, bytes]:
    return "penstock-revision", serving.revision_header[1]


def _post_failure(model: Model, outcome: str, seconds: float) -> None:
    model.metrics.post(partial(_count_failure, model, outcome, seconds))


# From here on: on the event loop.


def _count_failure(model: Model, outcome: str, seconds: float) -> None:
    model.metrics.requests[outcome] += 1
    model.state.statistics.failed(seconds)


def _count_answer(serving: Serving, answered: _Answered) -> None:
    rows, ran, here, predictions, total, decoding, encoding = answered
    serving.metrics.requests["ok"] += 1
    serving.metrics.request_seconds.observe(total)
    if here:
        serving.executor.on_run(ran.rows, ran.ran)
    serving.count_answer(rows, ran, predictions, decoding, encoding)
