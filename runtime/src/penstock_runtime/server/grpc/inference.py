"""ModelInfer: each call from its headers to its answer, counted like a request over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

from penstock_runtime.engine.job import Job, Ran
from penstock_runtime.engine.turn import Turn
from penstock_runtime.log import event, origin
from penstock_runtime.protocol.errors import Overloaded, ProtocolError, TimedOut, Unavailable
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.protocol.grpc.codec import MessageDecoder, encode, parse
from penstock_runtime.server.feedback.ids import Prediction
from penstock_runtime.server.forward.relay import Route
from penstock_runtime.server.grpc.codes import OK, Status, status, status_of
from penstock_runtime.server.grpc.core import Call, Metadata
from penstock_runtime.server.grpc.forwarding import Forwarding
from penstock_runtime.server.grpc.metadata import is_copy
from penstock_runtime.server.grpc.shadowing import Shadowing
from penstock_runtime.server.grpc.side import NO_MESSAGE
from penstock_runtime.server.metrics import outcome_of
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.serving import Serving

logger = logging.getLogger(__name__)

# Calls under way while no model is loaded, which all end as soon as their message has come.
_UNLOADED_CAPACITY = 256


class Inferences:
    """All ModelInfer calls that are under way."""

    def __init__(self, repository: Repository, forwarding: Forwarding, shadowing: Shadowing) -> None:
        """Answer by the models of `repository`, but for what `forwarding` chooses; `shadowing` is offered answers."""
        self.repository = repository
        self.forwarding = forwarding
        self.shadowing = shadowing
        # Those that are answered here, or it is not known yet, and those that another server answers.
        self.under_way: set[Inference] = set()
        self.handed_on: set[Inference] = set()
        # What a call becomes; from the event loop it may be exchanged for another class at any time.
        self.kind: Callable[[Inferences, Call, Model | None], Inference] = Inference
        self._known: WeakKeyDictionary[Serving, _Known] = WeakKeyDictionary()

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self.under_way) + len(self.handed_on)

    def take(self, call: Call) -> None:
        """Answer `call`, or refuse it unread if too many are under way."""
        models = list(self.repository.models.values())
        inference = self.kind(self, call, models[0] if len(models) == 1 else None)
        self.under_way.add(inference)
        if len(self.under_way) > self._capacity(models) + self.forwarding.capacity:
            inference.fail(Overloaded())
        else:
            call.receive(inference.answer)

    def refuse(self, call: Call, error: ProtocolError) -> None:
        """Answer a call that nobody may make, which is counted nowhere."""
        self.kind(self, call, None).fail(error)

    def known(self, serving: Serving, call: Call) -> _Known:
        """Return what is kept for a model. `call` is one of those for it."""
        known = self._known.get(serving)
        if known is None:
            # Nothing of it may refer to `serving`, which would then never be forgotten.
            tell = partial(serving.metrics.post, serving.executor.tell_run)
            known = _Known(MessageDecoder(serving.schema), serving.executor.turn(call.at_end, tell))
            self._known[serving] = known
        return known

    def waiting(self, serving: Serving) -> int:
        """Return how many calls for a model wait for the end of their turn."""
        known = self._known.get(serving)
        return 0 if known is None or known.turn is None else known.turn.inside

    def _capacity(self, models: list[Model]) -> int:
        """Return how many calls may be under way before it is known whom they are for."""
        servings = [serving for model in models for serving in list(model.versions.values())]
        if not servings:
            return _UNLOADED_CAPACITY
        return sum(serving.executor.capacity + self.waiting(serving) - serving.in_flight for serving in servings)

    def sweep(self, oldest: float) -> None:
        """Break off calls whose message has not come though they began before `oldest` (perf_counter())."""
        for inference in list(self.under_way):
            if not inference.received and inference.call.began < oldest:
                inference.call.cancel()

    def abandon(self) -> None:
        """Answer whatever still waits for a run or for another server with UNAVAILABLE; on the event loop."""
        for inference in (*self.under_way, *self.handed_on):
            inference.call.abandon()


class Inference:
    """One call. All but `_run` and `_relay` happens in the server's thread, and what is left to do after `_relay`."""

    __slots__ = ("_asked", "_count", "_inferences", "_job", "_model", "_serving", "_shadow", "call", "received")
    # While it waits for the end of its turn.
    _asked: _Asked
    _job: Job

    def __init__(self, inferences: Inferences, call: Call, model: Model | None) -> None:
        """Nothing is known but that it has arrived; `model`: the only one, which it then is meant for."""
        self.call = call
        self.received = False
        # A copy of another server's request: counted apart from users' requests, and answered raw, to be compared.
        self._shadow = is_copy(call.metadata)
        self._count: Callable[[Serving, Answered], None] = _count_copy if self._shadow else count_answer
        self._inferences = inferences
        self._model = model
        self._serving: Serving | None = None

    def answer(self, payload: bytes | None) -> None:
        """Answer the message `payload`: here if the request is tiny, else later."""
        self.received = True
        if payload is None:
            self._leave()
            return
        begun = time.perf_counter()
        try:
            message = self._parse(payload)
            self._model = None
            model = self._model = self._inferences.repository.known(message.model_name)
            forwarding = self._inferences.forwarding
            route = forwarding.choose(model, message.model_version, self.call)
            if route is None:
                self._answer_here(model, message, begun, in_turn=True)
                return
            # It takes no place here meanwhile.
            self._inferences.handed_on.add(self)
            self._inferences.under_way.discard(self)
            self.call.spawn(partial(self._relay, route, model, message, payload))
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            self.fail(error)

    _parse = staticmethod(parse)

    async def _relay(self, route: Route, model: Model, message: pb.ModelInferRequest, payload: bytes) -> None:
        if self.call.gone:
            self._leave()
            return
        forwarding = self._inferences.forwarding
        try:
            answer = await forwarding.relay(
                route, model.metrics, self.call, self._passing(), payload, bool(message.model_version)
            )
        except TimedOut as error:
            # Nobody's answer, so nobody's failure.
            self._end(status=status_of(error))
        except asyncio.CancelledError:
            if self.call.gone:
                self._end()
            else:
                self.fail(Unavailable("the server is shutting down"))
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)
        else:
            if answer is not None:
                self._end(answer.message, status(answer.code, answer.details), answer.initial, answer.trailing)
                return
            self._inferences.under_way.add(self)
            self._inferences.handed_on.discard(self)
            self._answer_here(model, message, time.perf_counter(), in_turn=False)

    def _passing(self) -> Metadata:
        """Return what goes along to another server."""
        return self.call.metadata

    def _answer_here(self, model: Model, message: pb.ModelInferRequest, begun: float, *, in_turn: bool) -> None:
        """Answer the message, now or later. `in_turn`: this is the server's thread, and it can be in its turn."""
        try:
            serving = self._admit(model, message.model_version or None)
            known = self._inferences.known(serving, self.call)
            request = known.decoder.decode(message)
            decoding = time.perf_counter() - begun
            fetched = serving.fetched(request)
            remaining = self.call.remaining
            if remaining <= 0:
                raise TimedOut("the client's deadline has passed")
            seconds = min(serving.timeout, remaining)
            ran = serving.executor.begin_in(known.turn if in_turn else None, fetched, request.inputs)
            if ran is None:
                self.call.spawn(partial(self._run, serving, request, fetched, seconds, decoding))
            elif isinstance(ran, Turn):
                self._asked = _Asked(serving, request, fetched, decoding, ran)
                self._job = ran.join(fetched, request.inputs, seconds, self)
            else:
                self._succeed(serving, request, fetched, ran, decoding, here=True)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            self.fail(error)

    def _admit(self, model: Model, version: str | None) -> Serving:
        while True:
            serving = self._serving = model.find(version)
            serving.calls.add(self)
            # Unless it was exchanged just now, it stays until we have left it.
            if model.find(version) is serving:
                break
            serving.calls.discard(self)
        capacity = serving.executor.capacity + self._inferences.waiting(serving)
        if len(serving.calls) + serving.in_flight > capacity:
            raise Overloaded
        return serving

    def done(self) -> bool:
        """Return False: once it has been told it is in no turn any more."""
        return False

    def set_result(self, ran: Ran) -> None:
        """Answer with what came of the turn's run."""
        serving, request, fetched, decoding, _ = self._leave_turn()
        if self.call.gone:
            self._leave()
            return
        try:
            self._succeed(serving, request, fetched, ran, decoding, here=False)
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)

    def set_exception(self, error: Exception) -> None:
        """Answer that nothing came of the turn's run."""
        self._leave_turn()
        self.fail(error)

    def _leave_turn(self) -> _Asked:
        asked = self._asked
        asked.turn.leave(self._job)
        # The job refers to us: without this only the garbage collector would free the call.
        del self._asked, self._job
        return asked

    async def _run(
        self, serving: Serving, request: InferRequest, fetched: tuple[str, ...], seconds: float, decoding: float
    ) -> None:
        if self.call.gone:
            self._leave()
            return
        try:
            ran = await serving.executor.run(fetched, request.inputs, seconds)
            self._succeed(serving, request, fetched, ran, decoding, here=False)
        except asyncio.CancelledError:
            if self.call.gone:
                self._leave()
            else:
                self.fail(Unavailable("the server is shutting down"))
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)

    def _succeed(
        self, serving: Serving, request: InferRequest, fetched: tuple[str, ...], ran: Ran, decoding: float, here: bool
    ) -> None:
        begun = time.perf_counter()
        predictions = serving.decide(fetched, ran, request.rows)
        raw = self._shadow or bool(request.binary)
        answer = encode(serving.name, serving.version, request.id, serving.tensors(request, ran), raw)
        issued = serving.issuer.issue(time.time(), request.rows, predictions)
        now = time.perf_counter()
        # Without the outputs, which would stay in memory until it is counted.
        timed = Ran([], ran.queued, ran.ran, ran.rows)
        answered = Answered(request.rows, timed, here, predictions, now - self.call.began, decoding, now - begun)
        # Before the answer goes out: who has it must find it counted.
        serving.metrics.post(partial(self._count, serving, answered))
        self._end(answer, metadata=(_revision(serving), ("penstock-prediction-id", issued)))
        self._inferences.shadowing.offer(self.call, serving, request, ran)

    def fail(self, error: Exception) -> None:
        """Answer with the status that `error` is."""
        if not isinstance(error, ProtocolError):
            event(logger, "unexpected failure", level=logging.ERROR, error=type(error).__name__,
                  where=origin(error))  # fmt: skip
            error = ProtocolError("internal error", status=500)
        self._count_failure(outcome_of(error.status))
        metadata: Metadata = () if self._serving is None else (_revision(self._serving),)
        self._end(status=status_of(error), metadata=metadata)

    def _leave(self) -> None:
        """Note that the client has gone, or sends nothing."""
        self._count_failure("timeout" if self.call.late else "client_error")
        self._end(status=status_of(NO_MESSAGE))

    def _count_failure(self, outcome: str) -> None:
        if self._model is not None:
            seconds = time.perf_counter() - self.call.began
            count = _count_failed_copy if self._shadow else _count_failure
            self._model.metrics.post(partial(count, self._model, self._serving, outcome, seconds))

    def _end(
        self,
        message: bytes | None = None,
        status: Status = OK,
        metadata: Metadata = (),
        trailing: Metadata | None = None,
    ) -> None:
        """Be under way no more, and answer whoever waits; see Call.finish."""
        self._inferences.under_way.discard(self)
        self._inferences.handed_on.discard(self)
        if self._serving is not None:
            self._serving.calls.discard(self)
        self.call.finish(message, status, metadata, trailing)


class _Known(NamedTuple):
    """What is kept for a model. `turn` is that of the server's thread, None if calls do not gain by company."""

    decoder: MessageDecoder
    turn: Turn | None


class _Asked(NamedTuple):
    """What is run at the end of the turn; `decoding` is in seconds."""

    serving: Serving
    request: InferRequest
    fetched: tuple[str, ...]
    decoding: float
    turn: Turn


class Answered(NamedTuple):
    """What is counted of an answered call: `here` tells where the model ran; the last three are seconds."""

    rows: int
    ran: Ran
    here: bool
    predictions: Sequence[Prediction]
    total: float
    decoding: float
    encoding: float


def _revision(serving: Serving) -> tuple[str, bytes]:
    return "penstock-revision", serving.revision_header[1]


# From here on: on the event loop.


def _count_failure(model: Model, serving: Serving | None, outcome: str, seconds: float) -> None:
    model.metrics.requests[outcome] += 1
    if serving is not None:
        serving.statistics.ended(seconds, success=False)


def _count_failed_copy(model: Model, _serving: Serving | None, outcome: str, _seconds: float) -> None:
    model.metrics.shadow_requests[outcome] += 1


def _count_copy(serving: Serving, answered: Answered) -> None:
    serving.metrics.shadow_requests["ok"] += 1
    if answered.here:
        serving.executor.on_run(answered.ran.rows, answered.ran.ran)


def count_answer(serving: Serving, answered: Answered) -> None:
    """Count an answered call."""
    rows, ran, here, predictions, total, decoding, encoding = answered
    serving.metrics.requests["ok"] += 1
    serving.metrics.request_seconds.observe(total)
    serving.statistics.ended(total, success=True)
    if here:
        serving.executor.on_run(ran.rows, ran.ran)
    serving.count_answer(rows, ran, predictions, decoding, encoding)
