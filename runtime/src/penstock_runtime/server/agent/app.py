"""An agent's data port: everything but commands is passed on to the upstream, and inference is counted."""

from __future__ import annotations

import asyncio
import time

import orjson

from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.server.agent.agent import Agent
from penstock_runtime.server.agent.paths import NO_COMMANDS, Inference, find_inference, is_command
from penstock_runtime.server.agent.shadow import Copy
from penstock_runtime.server.agent.upstream import Readiness, Upstream
from penstock_runtime.server.counting import Counted
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.message import SHADOW, between, hand_back, url_of
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
    read_body,
    require_method,
    unexpected,
)
from penstock_runtime.server.metrics import outcome_of
from penstock_runtime.server.settings import Serving
from penstock_runtime.server.traffic import Traffic

# The platform that the protocol has for what TensorFlow Serving serves.
_PLATFORM = "tensorflow_savedmodel"
# What the upstream may say itself, being measured or an agent.
_OURS = frozenset((b"penstock-revision", b"penstock-prediction-id"))


class AgentApp:
    """Answers health itself, and the model's metadata where the upstream has none in the protocol's terms.

    Counted is every request to infer with the model, whatever its method, version or fate; nothing else is.
    """

    def __init__(
        self, agent: Agent, upstream: Upstream, readiness: Readiness, traffic: Traffic, limits: Serving
    ) -> None:
        """Pass on to `upstream`, but for what `traffic` hands to another revision; copies go there as well."""
        self._agent = agent
        self._upstream = upstream
        self._readiness = readiness
        self._forwarder = traffic.forwarder
        self._shadower = traffic.shadower
        self._limits = limits
        self._metadata = f"/v2/models/{agent.model.name}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        scope[TASK] = asyncio.current_task()
        # While draining, clients are told to connect anew: to a pod that stays.
        extra = (CLOSE,) if self._agent.draining else ()
        inference = find_inference(path, self._agent.model.name, self._readiness.protocol)
        if inference is not None:
            await self._infer(inference, scope, receive, send, extra)
            return
        try:
            own = self._answer_self(scope, path)
            if own is not None:
                await answer(send, *own, extra)
            else:
                await hand_back(send, await self._pass_on(scope, await self._read(scope, receive)), extra)
        except Disconnected:
            return
        except asyncio.CancelledError:
            if GONE not in scope:
                await answer_error(send, Unavailable("the server is shutting down"), extra)
        except ProtocolError as error:
            await answer_error(send, error, extra)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            await answer_error(send, unexpected(error), extra)

    def _answer_self(self, scope: Scope, path: str) -> tuple[int, bytes] | None:
        readiness = self._readiness
        if is_command(scope["method"], path):
            raise ProtocolError(NO_COMMANDS, status=403)
        if path == "/v2/health/live":
            require_method(scope, "GET", "HEAD")
            return 200, b'{"live":true}'
        if path == "/v2/health/ready":
            require_method(scope, "GET", "HEAD")
            why = "shutting down" if self._agent.draining else readiness.why_not
            if why is None:
                return 200, b'{"ready":true}'
            return 503, orjson.dumps({"ready": False, "error": why})
        if path == self._metadata and readiness.protocol == "tfserving":
            require_method(scope, "GET", "HEAD")
            if readiness.schema is None:
                raise Unavailable("the upstream server has not told the model's metadata")
            return 200, orjson.dumps(
                readiness.schema.describe(self._agent.model.name, [readiness.version or ""], _PLATFORM)
            )
        return None

    async def _infer(
        self, inference: Inference, scope: Scope, receive: Receive, send: Send, extra: tuple[Header, ...]
    ) -> None:
        agent, metrics = self._agent, self._agent.model.metrics
        shadow = any(name == SHADOW for name, _ in scope["headers"])
        request = Counted(agent, agent.model, scope.get(STARTED) or time.perf_counter(), shadow=shadow)
        own = (agent.revision_header, *extra)
        copy: Copy | None = None
        try:
            if scope["method"] == "POST" and not inference.versioned:
                here = await self._forwarder.relay(metrics, scope, receive, send, extra)
                if here is None:
                    request.outcome = None
                    return
                receive = here
            body = await self._read(scope, receive)
            begun = time.perf_counter()
            response = await self._pass_on(scope, body)
            request.outcome = "ok" if 200 <= response.status < 300 else outcome_of(response.status)
            if request.outcome == "ok" and not shadow:
                metrics.inference_seconds.observe(time.perf_counter() - begun)
                own = (*own, (b"penstock-prediction-id", await agent.sign(inference, response)))
                # Another revision numbers its versions anew.
                if self._shadower.active and not inference.versioned:
                    copy = Copy(metrics, inference, url_of(scope), scope["headers"], body, response)
            await hand_back(send, response, own, _OURS)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            if (failure := request.fail(error, gone=GONE in scope)) is not None:
                await answer_error(send, failure, own)
        finally:
            request.end()
        if copy is not None and request.outcome == "ok":
            self._shadower.offer(copy)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body as it came: without its Content-Encoding, `read_body` does not decompress it."""
        length = {name: value for name, value in scope["headers"] if name == b"content-length"}
        return await read_body(length, receive, self._limits.max_body_bytes)

    async def _pass_on(self, scope: Scope, body: bytes) -> Response:
        """Return the upstream's answer within the request's time; raises ProtocolError."""
        now = time.perf_counter()
        seconds = max(0.0, self._limits.timeout - (now - scope.get(STARTED, now)))
        return await self._upstream.ask(scope["method"], url_of(scope), between(scope["headers"]), body, seconds)
