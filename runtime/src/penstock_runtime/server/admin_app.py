"""The admin port: feedback, the model repository, and what is told. It is never in the public route."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from penstock_runtime import __version__
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.protocol.decode import check_parameters
from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError, Unavailable
from penstock_runtime.server.http import (
    NAME,
    Disconnected,
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
from penstock_runtime.server.measured import Measured, find_model
from penstock_runtime.server.openapi.admin_port import admin_document
from penstock_runtime.server.settings import SettingsError
from penstock_runtime.server.told import Told

if TYPE_CHECKING:
    from penstock_runtime.server.repository.repository import Repository

# 10,000 items of an id of some 100 bytes and a label, with room to spare.
MAX_FEEDBACK_BYTES = 16 * 2**20
MAX_REQUEST_BYTES = 2**20
_FEEDBACK_PATH = re.compile(r"/v2/models/([^/]+)/feedback")
_REPOSITORY_PATH = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")

# Those of the protocol by their published names.
_EXTENSIONS = ("model_repository", "penstock_feedback")
_NO_CONTROL = "this server's models cannot be exchanged; it would have to be started with --model-control explicit"


class FeedbackApp:
    """POST /v2/models/{model}/feedback; GET, PUT and DELETE of what is told."""

    def __init__(self, models: Mapping[str, Measured], told: Mapping[str, Told[Any]]) -> None:
        """Take feedback for `models`. `told` are settings by name, each at /v2/{name}."""
        self._models = models
        self._told = {f"/v2/{name}": each for name, each in told.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            result = await self._answer(scope, receive)
        except Disconnected:
            return
        except ProtocolError as error:
            await answer_error(send, error)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            await answer_error(send, unexpected(error))
        else:
            await answer(send, 200, orjson.dumps(result))

    async def _answer(self, scope: Scope, receive: Receive) -> Any:
        path = scope["path"]
        if (told := self._told.get(path)) is not None:
            return await told.answer(scope, receive)
        if (match := _FEEDBACK_PATH.fullmatch(path)) is not None:
            model = find_model(self._models, match[1])
            require_method(scope, "POST")
            if model.intake is None:
                raise Unavailable("the model is not loaded yet")
            return await model.intake.take(await read_body(dict(scope["headers"]), receive, MAX_FEEDBACK_BYTES))
        return await self._answer_rest(path, scope, receive)

    async def _answer_rest(self, path: str, scope: Scope, receive: Receive) -> Any:
        raise not_found(path)


class AdminApp(FeedbackApp):
    """And POST /v2/repository/index, /v2/repository/models/{model}/load and /unload, and what this port is."""

    def __init__(
        self,
        repository: Repository,
        model_control: bool,
        told: Mapping[str, Told[Any]] = MappingProxyType({}),
        tokens: bool = False,
    ) -> None:
        """Take feedback for the models of `repository`, and with `model_control` commands on it.

        `tokens`: whether it is described as asking for them.
        """
        super().__init__(repository.models, told)
        self._repository = repository
        self._tokens = tokens
        self._extensions = (*_EXTENSIONS, *(f"penstock_{name}" for name in told))
        self._model_control = model_control

    async def _answer_rest(self, path: str, scope: Scope, receive: Receive) -> Any:
        headers = dict(scope["headers"])
        if path == "/openapi.json":
            require_method(scope, "GET", "HEAD")
            return admin_document(self._repository, self._tokens)
        if path == "/v2":
            require_method(scope, "GET", "HEAD")
            return {"name": NAME, "version": __version__, "extensions": self._extensions}
        if path == "/v2/repository/index":
            require_method(scope, "POST")
            body = _read_object(await read_body(headers, receive, MAX_REQUEST_BYTES))
            only_ready = body.get("ready", False)
            if type(only_ready) is not bool:
                raise InvalidRequest("'ready' must be true or false")
            return self._repository.index(only_ready)
        if (match := _REPOSITORY_PATH.fullmatch(path)) is not None:
            require_method(scope, "POST")
            if not self._model_control:
                raise ProtocolError(_NO_CONTROL, status=403)
            body = _read_object(await read_body(headers, receive, MAX_REQUEST_BYTES))
            await self._command(match[1], match[2], body)
            return {}
        raise not_found(path)

    async def _command(self, name: str, verb: str, body: dict[str, Any]) -> None:
        parameters = check_parameters(body.get("parameters", {}), "the request")
        if verb == "unload":
            await self._repository.unload(name)
            return
        if parameters:
            raise InvalidRequest("a model is loaded as it lies in its folder; parameters are not supported")
        try:
            await self._repository.load(name)
        except (ModelLoadError, SettingsError) as error:
            raise ProtocolError(f"model '{name[:80]}' was not loaded, nothing has changed: {error}") from None


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if type(value) is not dict:
        raise InvalidRequest("the body must be a JSON object")
    return value
