"""An agent's gRPC port: calls are passed on to the upstream as they came, and inference is counted."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import NamedTuple

from google.protobuf.message import DecodeError
from grpc import StatusCode

from penstock_runtime.protocol.errors import Overloaded, ProtocolError, TimedOut, Unavailable
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.agent.agent import Agent
from penstock_runtime.server.agent.messages import meant_by
from penstock_runtime.server.agent.paths import COMMANDS, NO_COMMANDS, Inference
from penstock_runtime.server.agent.shadow_calls import copy_call
from penstock_runtime.server.agent.upstream import Readiness
from penstock_runtime.server.counting import Counted
from penstock_runtime.server.forward.message import MIN_RESPONSE
from penstock_runtime.server.forward.relay import Route
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.grpc.client import Answer, Client, Metadata
from penstock_runtime.server.grpc.codes import OK, Status, status, status_of
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.grpc.forwarding import Forwarding
from penstock_runtime.server.grpc.health import Health
from penstock_runtime.server.grpc.metadata import is_copy, is_legal, passing
from penstock_runtime.server.grpc.side import MAX_SIDE_CALLS, NO_MESSAGE, Method, SideCalls, answering, first_bytes
from penstock_runtime.server.grpc.target import GrpcTarget
from penstock_runtime.server.http import Disconnected
from penstock_runtime.server.measured import Measured
from penstock_runtime.server.settings import Serving
from penstock_runtime.server.shadow.shadower import Copied
from penstock_runtime.server.traffic import Traffic

_OIP = "inference.GRPCInferenceService"
_SERVICES = (_OIP, "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
_PASSED = tuple(f"/{service}/".encode() for service in _SERVICES)
# The message tells whether a version is meant.
INFERENCES = {
    f"/{_OIP}/ModelInfer".encode(): Inference("oip", "infer", versioned=False),
    **{
        f"/tensorflow.serving.PredictionService/{name}".encode(): Inference("tfserving", name.lower(), versioned=False)
        for name in ("Predict", "Classify", "Regress")
    },
}
# What the upstream may say itself, being measured or an agent.
_OURS = frozenset(("penstock-revision", "penstock-prediction-id"))
_OUTCOMES = {
    StatusCode.OK: "ok", StatusCode.RESOURCE_EXHAUSTED: "rejected", StatusCode.UNAVAILABLE: "rejected",
    StatusCode.DEADLINE_EXCEEDED: "timeout", StatusCode.UNKNOWN: "server_error", StatusCode.INTERNAL: "server_error",
    StatusCode.DATA_LOSS: "server_error", StatusCode.UNIMPLEMENTED: "server_error",
}  # fmt: skip
# Seconds between two tries to connect: whoever waits for the upstream should not wait long once it is back.
_RETRY_SECONDS = 1.0


class _End(NamedTuple):
    """What `Call.finish` takes."""

    message: bytes | None = None
    status: Status = OK
    metadata: Metadata = ()
    trailing: Metadata = ()


class GrpcUpstream:
    """Calls to the upstream. To be used from the event loop it was made on."""

    def __init__(self, address: Address, limits: Serving, readiness: Readiness) -> None:
        """Nothing is connected before the first call. `readiness` looks at once where there is no answer."""
        most = max(MIN_RESPONSE, limits.max_body_bytes)
        calls = max(1, limits.max_queue) + MAX_SIDE_CALLS
        self._client = Client(address.endpoint, most, max_calls=calls, longest_pause=_RETRY_SECONDS)
        self._timeout = limits.timeout
        self._readiness = readiness

    async def ask(self, call: Call, payload: bytes) -> Answer:
        """Return the upstream's answer to `call`, whatever it is; raises ProtocolError where there is none."""
        seconds = min(self._timeout - (time.perf_counter() - call.began), call.remaining)
        if seconds <= 0:
            raise TimedOut("the time was over before the call could be passed on")
        answer = await self._client.call(call.method.decode(), payload, passing(call.metadata), seconds)
        if answer.code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED):
            self._readiness.doubt()
        if not answer.sent:
            if answer.code is StatusCode.RESOURCE_EXHAUSTED:
                raise Overloaded
            if answer.code is StatusCode.UNAVAILABLE:
                raise Unavailable("the upstream server cannot be reached")
        return answer

    def close(self) -> None:
        """Break off what is under way and close all connections."""
        self._client.close()


class Inferences:
    """All calls that are under way to infer, with whatever model."""

    def __init__(
        self, agent: Agent, upstream: GrpcUpstream, readiness: Readiness, traffic: Traffic, limits: Serving
    ) -> None:
        """Pass them on to `upstream`, but for what `traffic` leads elsewhere, and count those for the agent's model."""
        # Those that the upstream answers, or it is not known yet, and those that another server does.
        self.under_way: set[Call] = set()
        self.handed_on: set[Call] = set()
        # Of the former, those whose message has not come yet.
        self._silent: set[Call] = set()
        self._agent = agent
        self._upstream = upstream
        self._readiness = readiness
        self._forwarding = Forwarding(traffic.forwarder)
        self._shadower = traffic.shadower
        traffic.shadower.peer.connect_grpc = GrpcTarget
        self._most = max(1, limits.max_queue)
        self._revision = ("penstock-revision", agent.revision_header[1])

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self.under_way) + len(self.handed_on)

    def take(self, call: Call) -> None:
        """Have `call` passed on, or refuse it unread if too many are under way; in the server's thread."""
        if len(self.under_way) >= self._most + self._forwarding.capacity:
            metrics = self._agent.model.metrics
            metrics.post(partial(_count_refusal, self._agent.model, shadow=is_copy(call.metadata)))
            call.finish(status=status_of(Overloaded()), metadata=(self._revision,))
            return
        self.under_way.add(call)
        self._silent.add(call)
        call.receive(partial(self._received, call))

    def _received(self, call: Call, payload: bytes | None) -> None:
        self._silent.discard(call)
        call.spawn(partial(self._pass, call, INFERENCES[call.method], payload))

    def sweep(self, oldest: float) -> None:
        """Break off calls whose message has not come though they began before `oldest` (perf_counter())."""
        for call in list(self._silent):
            if call.began < oldest:
                call.cancel()

    def abandon(self) -> None:
        """Answer whatever still waits with UNAVAILABLE; on the event loop."""
        for call in (*self.under_way, *self.handed_on):
            call.abandon()

    async def _pass(self, call: Call, inference: Inference, payload: bytes | None) -> None:
        request = Counted(self._agent, self._agent.model, call.began, shadow=is_copy(call.metadata))
        # Unless it is for another model, or answered and counted by another server.
        counts = True
        end: _End | None = None
        copy: Copied | None = None
        try:
            if call.gone:
                raise Disconnected
            if payload is None:
                raise NO_MESSAGE
            counts, versioned = self._is_measured(inference, payload)
            # Another revision numbers its versions anew.
            route = self._forwarding.route(self._agent.model.name, call) if counts and not versioned else None
            if route is not None:
                end = await self._relay(route, call, payload)
                counts = end is None
            if end is None:
                begun = time.perf_counter()
                answer = await self._upstream.ask(call, payload)
                end = _end(answer, self._measure(inference, request, answer, begun) if counts else ())
                if self._shadower.active and counts and not versioned:
                    copy = self._copy(inference, call, request, payload, answer)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            failure = request.fail(error, gone=call.gone)
            if failure is not None:
                end = _End(status=status_of(failure), metadata=(self._revision,))
            if call.late:
                # So the client says itself, whatever it was.
                request.outcome = "timeout"
        finally:
            self.under_way.discard(call)
            self.handed_on.discard(call)
            if not counts:
                request.outcome = None
            # Before the answer goes out: who has it must find it counted.
            request.end()
        if end is not None:
            call.finish(*end)
        if copy is not None:
            self._shadower.offer(copy, grpc=inference.protocol == "tfserving")

    def _copy(
        self, inference: Inference, call: Call, request: Counted[Measured], payload: bytes, answer: Answer
    ) -> Copied | None:
        if answer.message is None or request.shadow:
            return None
        return copy_call(self._agent.model.metrics, inference, call, payload, answer.message)

    async def _relay(self, route: Route, call: Call, payload: bytes) -> _End | None:
        """Return what the other server makes of it; None if it is to be answered here."""
        # It takes no place here meanwhile.
        self.handed_on.add(call)
        self.under_way.discard(call)
        try:
            metrics = self._agent.model.metrics
            answer = await self._forwarding.relay(route, metrics, call, call.metadata, payload, versioned=False)
        except TimedOut as error:
            # Nobody's answer, so nobody's failure.
            return _End(status=status_of(error))
        except asyncio.CancelledError:
            if call.gone:
                return _End()
            raise
        if answer is not None:
            return _End(answer.message, status(answer.code, answer.details), answer.initial, answer.trailing)
        self.under_way.add(call)
        self.handed_on.discard(call)
        return None

    def _measure(self, inference: Inference, request: Counted[Measured], answer: Answer, begun: float) -> Metadata:
        """Note how it ended, and return the metadata of our own for its answer."""
        request.outcome = _OUTCOMES.get(answer.code, "client_error")
        if answer.message is None or request.shadow:
            return (self._revision,)
        self._agent.model.metrics.inference_seconds.observe(time.perf_counter() - begun)
        return (self._revision, ("penstock-prediction-id", self._agent.sign_message(inference, answer.message)))

    def _is_measured(self, inference: Inference, payload: bytes) -> tuple[bool, bool]:
        """Return whether it is for the agent's model, and whether it names a version."""
        if self._readiness.protocol not in (None, inference.protocol):
            return False, False
        try:
            model, versioned = meant_by(inference, payload)
        except DecodeError:
            # Nobody can tell whom it is for; the upstream says what is wrong with it.
            return True, True
        return model == self._agent.model.name, versioned


class AgentServices:
    """Takes every call: inference, what else passes, and what an agent answers itself."""

    def __init__(
        self, agent: Agent, upstream: GrpcUpstream, readiness: Readiness, traffic: Traffic, limits: Serving
    ) -> None:
        """Put them together."""
        self.inferences = Inferences(agent, upstream, readiness, traffic, limits)
        self.health = Health(self._serves)
        self._agent = agent
        self._upstream = upstream
        self._readiness = readiness
        own = {
            **self.health.methods,
            f"/{_OIP}/ServerLive": answering(pb.ServerLiveRequest, lambda _: pb.ServerLiveResponse(live=True)),
            f"/{_OIP}/ServerReady": answering(
                pb.ServerReadyRequest, lambda _: pb.ServerReadyResponse(ready=self._ready)
            ),
        }
        self._own = {path.encode(): method for path, method in own.items()}
        self._own[f"/{_OIP}/ModelStreamInfer".encode()] = Method(_refuse_stream)
        self._own.update(dict.fromkeys(COMMANDS, Method(_refuse_command)))
        self._passed = Method(self._pass)
        self._unknown = Method(_refuse_unknown)
        self._others = SideCalls(self._find)

    def take(self, call: Call) -> None:
        """Have a call that has arrived answered."""
        if call.method in INFERENCES:
            self.inferences.take(call)
        else:
            self._others.take(call)

    def refuse(self, call: Call, error: ProtocolError) -> None:
        """Answer a call that nobody may make."""
        call.finish(status=status_of(error))

    def abandon(self) -> None:
        """End all calls but inferences; on the event loop."""
        self._others.abandon()

    @property
    def _ready(self) -> bool:
        return self._readiness.why_not is None and not self._agent.draining

    def _serves(self, service: str) -> bool | None:
        return self._ready if service in ("", self._agent.model.name) else None

    def _find(self, method: bytes) -> Method:
        return self._own.get(method) or (self._passed if method.startswith(_PASSED) else self._unknown)

    async def _pass(self, call: Call) -> None:
        call.finish(*_end(await self._upstream.ask(call, await first_bytes(call))))


async def _refuse_command(_: Call) -> None:
    raise ProtocolError(NO_COMMANDS, status=403)


async def _refuse_stream(_: Call) -> None:
    raise ProtocolError("streams do not pass through an agent; call ModelInfer for each request instead", status=501)


async def _refuse_unknown(call: Call) -> None:
    if call.method.startswith(b"/grpc.reflection."):
        raise ProtocolError(
            "an agent does not answer reflection; give your client the .proto files of the server behind it", status=501
        )
    raise ProtocolError(f"an agent passes on only unary methods of {', '.join(_SERVICES)}", status=501)


def _end(answer: Answer, own: Metadata = ()) -> _End:
    return _End(
        answer.message, status(answer.code, answer.details), (*_back(answer.initial), *own), _back(answer.trailing)
    )


def _back(metadata: Metadata) -> Metadata:
    return tuple(item for item in metadata if item[0] not in _OURS and is_legal(*item))


def _count_refusal(model: Measured, *, shadow: bool) -> None:
    counts = model.metrics.shadow_requests if shadow else model.metrics.requests
    counts["rejected"] += 1
