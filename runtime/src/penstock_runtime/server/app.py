"""The data port: health, metadata and inference, as a plain ASGI application."""

from __future__ import annotations

import asyncio
import re
import time

import orjson

from penstock_runtime import __version__
from penstock_runtime.engine.session import PLATFORM
from penstock_runtime.protocol.binary_data import read_header_length
from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.server.compression import MIN_COMPRESSED, choose_coding, compressed
from penstock_runtime.server.counting import Counted
from penstock_runtime.server.forward.message import SHADOW, url_of
from penstock_runtime.server.forward.relay import Forwarder
from penstock_runtime.server.http import (
    CLOSE,
    GONE,
    LENGTH_HEADER,
    NAME,
    STARTED,
    TASK,
    Header,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    not_found,
    read_body,
    require_method,
    unexpected,
)
from penstock_runtime.server.openapi.data_port import data_document
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.serving import Answer, Serving
from penstock_runtime.server.shadow.shadower import Copy, Shadower

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
_SERVER = orjson.dumps({"name": NAME, "version": __version__, "extensions": _EXTENSIONS})
# Of the largest element, FP64 or INT64.
_ALIGNMENT = 8
_MODELS = "/v2/models/"
_INFER = "/infer"
_SEGMENT = re.compile(r"[^/]+")
_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|stats|infer))?")


class DataApp:
    """Answers the Open Inference Protocol.

    Counted in the metrics is every request to a known model's infer path, whatever its method, version or fate
    (a 404 for an unknown version, a 405, a 503 before the model is loaded); never health, metadata, unknown
    models or other paths: those say nothing about the model. Copies of other servers' requests are counted
    apart, and what was forwarded by the server that answered it.
    """

    def __init__(
        self,
        repository: Repository,
        max_body_bytes: int,
        forwarder: Forwarder | None = None,
        shadower: Shadower | None = None,
        tokens: bool = False,
    ) -> None:
        """Serve the models of `repository`, but for what `forwarder` hands to another server.

        `shadower` is offered what has been answered. `tokens`: whether it is described as asking for them.
        """
        self._repository = repository
        self._forwarder = forwarder
        self._shadower = shadower
        self._tokens = tokens
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path.startswith(_MODELS) and path.endswith(_INFER):
            name, versioned, version = path[len(_MODELS) : -len(_INFER)].partition("/versions/")
            model = self._repository.models.get(name)
            if model is not None and (not versioned or _SEGMENT.fullmatch(version)):
                await self._infer(model, version if versioned else None, scope, receive, send)
                return
        headers = self._headers()
        try:
            status, body = self._look_up(scope, path)
        except ProtocolError as error:
            await answer_error(send, error, headers)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            await answer_error(send, unexpected(error), headers)
        else:
            await answer(send, status, body, headers)

    def _headers(self) -> tuple[Header, ...]:
        # While draining, clients are told to connect anew: to a pod that stays.
        return (CLOSE,) if self._repository.draining else ()

    async def _infer(self, model: Model, version: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        given: dict[bytes, bytes] = dict(scope["headers"])
        request = Counted(self._repository, model, scope.get(STARTED) or time.perf_counter(), shadow=SHADOW in given)
        copy: Copy | None = None
        headers = self._headers()
        scope[TASK] = asyncio.current_task()
        try:
            require_method(scope, "POST")
            # A version by name that is not the current one is meant: the target may not have it.
            if self._forwarder is not None and model.find(version) is model.current:
                here = await self._forwarder.relay(model.metrics, scope, receive, send, headers)
                if here is None:
                    request.outcome = None
                    return
                receive = here
            if self._shadower is not None and self._shadower.active and not request.shadow:
                copy = Copy(model.metrics, url_of(scope), scope["headers"])
            body, extra, kind = await self._answer_inference(request.admit(version), given, receive, copy)
            await answer(send, 200, body, (*extra, *headers), kind)
            request.outcome = "ok"
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            if (failure := request.fail(error, gone=GONE in scope)) is not None:
                await answer_error(send, failure, (*revision_of(model), *headers))
        finally:
            request.end()
        if copy is not None and self._shadower is not None and request.outcome == "ok":
            self._shadower.offer(copy)

    async def _answer_inference(
        self, serving: Serving, headers: dict[bytes, bytes], receive: Receive, copy: Copy | None
    ) -> Answer:
        length: int | None = None
        lead = 0
        if (value := headers.get(LENGTH_HEADER)) is not None:
            length, lead = read_binary_header(value)
            length += lead
        body = await read_body(headers, receive, self._max_body_bytes, lead)
        outputs = None
        if copy is not None:
            copy.body, copy.header_length, outputs = body, length, copy.outputs
        result = await serving.infer(body, length, shadow=SHADOW in headers, outputs=outputs)
        if len(result[0]) >= MIN_COMPRESSED and (accepted := headers.get(b"accept-encoding")):
            return await compress_answer(result, accepted)
        return result

    def _look_up(self, scope: Scope, path: str) -> tuple[int, bytes]:
        repository = self._repository
        match path:
            case "/v2/health/live":
                require_method(scope, "GET", "HEAD")
                return 200, b'{"live":true}'
            case "/v2/health/ready":
                require_method(scope, "GET", "HEAD")
                return _readiness({"ready": repository.ready}, repository.why_not_ready())
            case "/v2":
                require_method(scope, "GET", "HEAD")
                return 200, _SERVER
            case "/openapi.json":
                require_method(scope, "GET", "HEAD")
                return 200, orjson.dumps(data_document(repository, self._tokens))
            case "/v2/models/stats" if "stats" not in repository.models:
                require_method(scope, "GET", "HEAD")
                return 200, _statistics(list(repository.servings))
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            raise not_found(path)
        return self._look_up_model(scope, *match.groups())

    def _look_up_model(self, scope: Scope, name: str, version: str | None, verb: str | None) -> tuple[int, bytes]:
        model = self._repository.known(name)
        require_method(scope, "GET", "HEAD")
        if verb == "ready":
            return self._model_readiness(model, version)
        serving = model.find(version)
        if verb == "config":
            return 200, serving.config
        if verb == "stats":
            return 200, _statistics([serving] if version is not None else list(model.versions.values()))
        return 200, orjson.dumps(serving.schema.describe(name, list(model.versions), PLATFORM))

    def _model_readiness(self, model: Model, version: str | None) -> tuple[int, bytes]:
        why = self._repository.why_none_ready()
        try:
            model.find(version)
        except Unavailable as error:
            why = error.message
        return _readiness({"name": model.name, "ready": why is None}, why)


def read_binary_header(value: bytes) -> tuple[int, int]:
    """Return the length of the JSON part, and how many spaces to put before it; raises InvalidRequest.

    With them the first tensor behind it is aligned, and need not be copied.
    """
    length = read_header_length(value)
    return length, -length % _ALIGNMENT


async def compress_answer(result: Answer, accepted: bytes) -> Answer:
    """Return `result` in a coding that the client accepts, if it does any that we know."""
    coding = choose_coding(accepted)
    if coding is None:
        return result
    body, headers, kind = result
    extra = ((b"content-encoding", coding), (b"vary", b"accept-encoding"))
    return await compressed(body, coding), (*headers, *extra), kind


def revision_of(model: Model) -> tuple[Header, ...]:
    """Return the header that tells the revision, once the model is loaded."""
    return () if model.current is None else (model.current.revision_header,)


def _statistics(servings: list[Serving]) -> bytes:
    return orjson.dumps({"model_stats": [each.describe_statistics() for each in servings]})


def _readiness(body: dict[str, object], why_not: str | None) -> tuple[int, bytes]:
    if why_not is None:
        return 200, orjson.dumps(body)
    return 503, orjson.dumps({**body, "error": why_not})
