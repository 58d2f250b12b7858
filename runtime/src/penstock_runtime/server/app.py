"""The data port: health, metadata and inference of one model, as a plain ASGI application."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field

import orjson

from penstock_runtime import __version__
from penstock_runtime.log import event, origin
from penstock_runtime.protocol.binary_data import read_header_length
from penstock_runtime.protocol.errors import Overloaded, ProtocolError, Unavailable
from penstock_runtime.server.compression import MIN_COMPRESSED, choose_coding, compressed
from penstock_runtime.server.forward.message import SHADOW
from penstock_runtime.server.forward.relay import Forwarder
from penstock_runtime.server.http import (
    CLOSE,
    GONE,
    STARTED,
    TASK,
    Disconnected,
    Header,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    not_found,
    read_body,
    require_method,
)
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.serving import LENGTH_HEADER, Answer, Serving
from penstock_runtime.server.shadow.shadower import Copy, Shadower
from penstock_runtime.server.statistics import Statistics

logger = logging.getLogger(__name__)

_OUTCOMES = {429: "rejected", 503: "rejected", 504: "timeout"}
_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
_SERVER = orjson.dumps({"name": "penstock-runtime", "version": __version__, "extensions": _EXTENSIONS})
# Of the largest element, FP64 or INT64.
_ALIGNMENT = 8
_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|stats|infer))?")


@dataclass(slots=True)
class State:
    """What the apps of one process share. `serving` is None until the model is loaded and warm."""

    model: str
    serving: Serving | None = None
    draining: bool = False
    in_flight: int = field(default=0)
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self.serving is not None and not self.draining


class DataApp:
    """Answers the Open Inference Protocol.

    Counted in the metrics is every request to this model's infer path, whatever its method, version or fate
    (a 404 for an unknown version, a 405, a 503 before the model is loaded); never health, metadata, unknown
    models or other paths: those say nothing about the model. Copies of other servers' requests are counted
    apart, and what was forwarded by the server that answered it.
    """

    def __init__(
        self,
        state: State,
        metrics: Metrics,
        max_body_bytes: int,
        forwarder: Forwarder | None = None,
        shadower: Shadower | None = None,
    ) -> None:
        """Serve what `state` holds, counting in `metrics`, but for what `forwarder` hands to another server.

        `shadower` is offered what has been answered.
        """
        self._state = state
        self._forwarder = forwarder
        self._shadower = shadower
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._infer_path = f"/v2/models/{state.model}/infer"
        self._infer_start = f"/v2/models/{state.model}/versions/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        if path == self._infer_path or (path.startswith(self._infer_start) and path.endswith("/infer")):
            await self._infer(scope, receive, send)
            return
        headers = self._headers()
        try:
            status, body = self._look_up(scope, path)
        except ProtocolError as error:
            await answer_error(send, error, headers)
        else:
            await answer(send, status, body, headers)

    def _headers(self) -> tuple[Header, ...]:
        # While draining, clients are told to connect anew: to a pod that stays.
        return (CLOSE,) if self._state.draining else ()

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = scope.get(STARTED) or time.perf_counter()
        outcome: str | None = "server_error"
        headers = self._headers()
        scope[TASK] = asyncio.current_task()
        given: dict[bytes, bytes] = dict(scope["headers"])
        shadow = SHADOW in given
        self._state.in_flight += 1
        try:
            serving = self._admit(scope)
            if self._forwarder is not None and self._forwarder.active:
                here = await self._forwarder.relay(scope, receive, send, headers)
                if here is None:
                    # Whoever answered has counted it: this revision is not judged by what another one says.
                    outcome = None
                    return
                receive = here
            copy = None if self._shadower is None else self._shadower.prepare(scope, given)
            body, extra, kind = await self._answer_inference(serving, given, receive, copy)
            await answer(send, 200, body, (*extra, *headers), kind)
            outcome = "ok"
            if copy is not None and self._shadower is not None:
                self._shadower.offer(copy)
        except Disconnected:
            outcome = "client_error"
        except asyncio.CancelledError:
            if GONE in scope:
                outcome = "client_error"
                return
            # The time to finish is over: better an answer that says so than a connection that breaks.
            outcome = "rejected"
            await answer_error(send, Unavailable("the server is shutting down"), headers)
        except ProtocolError as error:
            outcome = _OUTCOMES.get(error.status, "client_error" if error.status < 500 else "server_error")
            await answer_error(send, error, (*self._revision(), *headers))
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            event(logger, "unexpected failure", level=logging.ERROR, error=type(error).__name__,
                  where=origin(error))  # fmt: skip
            await answer_error(send, ProtocolError("internal error", status=500), headers)
        finally:
            self._state.in_flight -= 1
            if shadow and outcome is not None:
                self._metrics.shadow_requests[outcome] += 1
            elif outcome is not None:
                self._count(outcome, time.perf_counter() - start)

    def _count(self, outcome: str, seconds: float) -> None:
        self._metrics.requests[outcome] += 1
        if outcome == "ok":
            self._metrics.request_seconds.observe(seconds)
        else:
            self._state.statistics.failed(seconds)

    def _admit(self, scope: Scope) -> Serving:
        """Return what answers the request; raises ProtocolError if nothing here does."""
        require_method(scope, "POST")
        serving = self._state.serving
        if serving is None:
            raise Unavailable("the model is not loaded yet")
        path = scope["path"]
        if path is not self._infer_path and path != self._infer_path:
            version = path[len(self._infer_start) : -len("/infer")]
            serving.check_version(version)
        return serving

    async def _answer_inference(
        self, serving: Serving, headers: dict[bytes, bytes], receive: Receive, copy: Copy | None
    ) -> Answer:
        # Those that wait for another server take no place here.
        away = 0 if self._forwarder is None else self._forwarder.in_flight
        if self._state.in_flight - away > serving.executor.capacity:
            raise Overloaded
        length: int | None = None
        lead = 0
        if (value := headers.get(LENGTH_HEADER)) is not None:
            length = read_header_length(value)
            # Spaces before the JSON, so that the first tensor behind it is aligned and need not be copied.
            lead = -length % _ALIGNMENT
            length += lead
        body = await read_body(headers, receive, self._max_body_bytes, lead)
        outputs = None
        if copy is not None:
            copy.body, copy.header_length, outputs = body, length, copy.outputs
        result = await serving.infer(body, length, shadow=SHADOW in headers, outputs=outputs)
        if len(result[0]) >= MIN_COMPRESSED and (accepted := headers.get(b"accept-encoding")):
            return await _compress(result, accepted)
        return result

    def _revision(self) -> tuple[Header, ...]:
        serving = self._state.serving
        return () if serving is None else (serving.revision_header,)

    def _look_up(self, scope: Scope, path: str) -> tuple[int, bytes]:
        state = self._state
        match path:
            case "/v2/health/live":
                require_method(scope, "GET", "HEAD")
                return 200, b'{"live":true}'
            case "/v2/health/ready":
                require_method(scope, "GET", "HEAD")
                return _readiness(state, {"ready": state.ready})
            case "/v2":
                require_method(scope, "GET", "HEAD")
                return 200, _SERVER
            case "/v2/models/stats" if state.model != "stats":
                return self._look_up_model(scope, state.model, None, "stats")
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            raise not_found(path)
        return self._look_up_model(scope, *match.groups())

    def _look_up_model(self, scope: Scope, name: str, version: str | None, verb: str | None) -> tuple[int, bytes]:
        state = self._state
        if name != state.model:
            raise ProtocolError(f"unknown model '{name[:80]}'; this server has '{state.model}'", status=404)
        require_method(scope, "GET", "HEAD")
        serving = state.serving
        if serving is not None:
            serving.check_version(version)
        if verb == "ready":
            return _readiness(state, {"name": name, "ready": state.ready})
        if serving is None:
            raise Unavailable("the model is not loaded yet")
        if verb == "config":
            return 200, serving.config
        if verb == "stats":
            return 200, orjson.dumps(state.statistics.describe(name, serving.version, self._metrics))
        return 200, serving.metadata


async def _compress(result: Answer, accepted: bytes) -> Answer:
    coding = choose_coding(accepted)
    if coding is None:
        return result
    body, headers, kind = result
    extra = ((b"content-encoding", coding), (b"vary", b"accept-encoding"))
    return await compressed(body, coding), (*headers, *extra), kind


def _readiness(state: State, body: dict[str, object]) -> tuple[int, bytes]:
    if state.ready:
        return 200, orjson.dumps(body)
    why = "shutting down" if state.draining else "the model is not loaded yet"
    return 503, orjson.dumps({**body, "error": why})
