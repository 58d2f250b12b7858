"""The data port: health, metadata and inference, as a plain ASGI application."""

from __future__ import annotations

import asyncio
import re
import time

import orjson

from penstock_runtime import __version__
from penstock_runtime.engine.session import PLATFORM
from penstock_runtime.protocol.binary_data import read_header_length
from penstock_runtime.protocol.errors import Overloaded, ProtocolError, Unavailable
from penstock_runtime.server.compression import MIN_COMPRESSED, choose_coding, compressed
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
    unexpected,
)
from penstock_runtime.server.openapi.data_port import data_document
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.serving import LENGTH_HEADER, Answer, Serving

_OUTCOMES = {429: "rejected", 503: "rejected", 504: "timeout"}
_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
_SERVER = orjson.dumps({"name": "penstock-runtime", "version": __version__, "extensions": _EXTENSIONS})
# Of the largest element, FP64 or INT64.
_ALIGNMENT = 8
_MODELS = "/v2/models/"
_INFER = "/infer"
_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|stats|infer))?")


class DataApp:
    """Answers the Open Inference Protocol.

    Counted in the metrics is every request to a known model's infer path, whatever its method, version or fate
    (a 404 for an unknown version, a 405, a 503 before the model is loaded); never health, metadata, unknown
    models or other paths: those say nothing about the model.
    """

    def __init__(self, repository: Repository, max_body_bytes: int) -> None:
        """Serve the models of `repository`."""
        self._repository = repository
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path.startswith(_MODELS) and path.endswith(_INFER):
            name, versioned, version = path[len(_MODELS) : -len(_INFER)].partition("/versions/")
            model = self._repository.models.get(name)
            if model is not None:
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
        start = scope.get(STARTED) or time.perf_counter()
        outcome = "server_error"
        headers = self._headers()
        scope[TASK] = asyncio.current_task()
        serving: Serving | None = None
        self._repository.in_flight += 1
        try:
            require_method(scope, "POST")
            serving = model.find(version)
            serving.in_flight += 1
            body, extra, kind = await self._answer_inference(serving, scope, receive)
            await answer(send, 200, body, (*extra, *headers), kind)
            outcome = "ok"
            seconds = time.perf_counter() - start
            model.metrics.request_seconds.observe(seconds)
            serving.statistics.succeeded(seconds)
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
            await answer_error(send, error, (*_revision(model), *headers))
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            await answer_error(send, unexpected(error), headers)
        finally:
            self._repository.in_flight -= 1
            model.metrics.requests[outcome] += 1
            if serving is not None:
                serving.in_flight -= 1
                if outcome != "ok":
                    serving.statistics.failed(time.perf_counter() - start)

    async def _answer_inference(self, serving: Serving, scope: Scope, receive: Receive) -> Answer:
        if serving.in_flight > serving.executor.capacity:
            raise Overloaded
        headers = dict(scope["headers"])
        value = headers.get(LENGTH_HEADER)
        if value is None:
            result = await serving.infer(await read_body(headers, receive, self._max_body_bytes))
        else:
            length = read_header_length(value)
            # Spaces before the JSON, so that the first tensor behind it is aligned and need not be copied.
            lead = -length % _ALIGNMENT
            body = await read_body(headers, receive, self._max_body_bytes, lead)
            result = await serving.infer(body, length + lead)
        if len(result[0]) >= MIN_COMPRESSED and (accepted := headers.get(b"accept-encoding")):
            return await _compress(result, accepted)
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
                return 200, orjson.dumps(data_document(repository))
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
        why = "shutting down" if self._repository.draining else None
        try:
            model.find(version)
        except Unavailable as error:
            why = error.message
        return _readiness({"name": model.name, "ready": why is None}, why)


async def _compress(result: Answer, accepted: bytes) -> Answer:
    coding = choose_coding(accepted)
    if coding is None:
        return result
    body, headers, kind = result
    extra = ((b"content-encoding", coding), (b"vary", b"accept-encoding"))
    return await compressed(body, coding), (*headers, *extra), kind


def _revision(model: Model) -> tuple[Header, ...]:
    return () if model.current is None else (model.current.revision_header,)


def _statistics(servings: list[Serving]) -> bytes:
    return orjson.dumps({"model_stats": [each.statistics.describe(each.name, each.version) for each in servings]})


def _readiness(body: dict[str, object], why_not: str | None) -> tuple[int, bytes]:
    if why_not is None:
        return 200, orjson.dumps(body)
    return 503, orjson.dumps({**body, "error": why_not})
