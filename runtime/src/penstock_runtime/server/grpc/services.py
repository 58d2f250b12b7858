"""Every method that is served over gRPC, and who answers it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NoReturn

import orjson
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from penstock_runtime import __version__
from penstock_runtime.engine.session import PLATFORM
from penstock_runtime.log import event, origin
from penstock_runtime.protocol.errors import InvalidRequest, Overloaded, ProtocolError, Unavailable
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc import health
from penstock_runtime.server.grpc.codes import status_of
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.grpc.inference import NO_MESSAGE, Inferences
from penstock_runtime.server.http import BODY_SECONDS
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.security.guard import refusal
from penstock_runtime.server.security.tokens import Tokens

logger = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
# The two are the same but for their names, and tools ask for either.
REFLECTIONS = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
EXTENSIONS = ("model_configuration", "statistics")
# Calls of everything but inference: probes, those who watch the health, and people who look.
MAX_SIDE_CALLS = 256

_INFER = f"/{SERVICE}/ModelInfer".encode()
# What answers probes, as HEALTH of the guard does over HTTP.
_OPEN = frozenset(
    f"/{name}".encode()
    for name in (
        f"{health.SERVICE}/Check",
        f"{health.SERVICE}/Watch",
        f"{SERVICE}/ServerLive",
        f"{SERVICE}/ServerReady",
    )
)
_Stream = Callable[[Call], Awaitable[None]]
_Answer = Callable[[Any], Message]


class Services:
    """Takes every call. Inference is answered in the server's thread where it can be, all else on the event loop."""

    def __init__(self, inferences: Inferences, watched: health.Health, tokens: Tokens | None = None) -> None:
        """Put them together; with `tokens` every call but those of probes needs one."""
        self.inferences = inferences
        self._tokens = tokens
        self._ordinary: set[Call] = set()
        self._open_ended: set[Call] = set()
        answers: dict[str, tuple[type[Message], _Answer]] = {
            f"/{health.SERVICE}/Check": (health_pb2.HealthCheckRequest, watched.check),
            **{f"/{SERVICE}/{name}": method for name, method in _methods(inferences.repository).items()},
        }
        self._methods: dict[bytes, tuple[set[Call], _Stream]] = {
            **{path.encode(): (self._ordinary, partial(_answer_one, *method)) for path, method in answers.items()},
            **{f"/{name}/ServerReflectionInfo".encode(): (self._open_ended, _reflect) for name in REFLECTIONS},
            f"/{health.SERVICE}/Watch".encode(): (self._open_ended, partial(_watch, watched)),
        }

    def take(self, call: Call) -> None:
        """Have a call that has arrived answered, unless it needs a token and has none: then nothing counts it."""
        if self._tokens is not None and call.method not in _OPEN:
            refused = refusal(self._tokens, _authorization(call))
            if refused is not None:
                call.finish(status=status_of(refused))
                return
        if call.method == _INFER:
            self.inferences.take(call)
            return
        method = self._methods.get(call.method)
        if method is None:
            call.finish(status=status_of(ProtocolError("there is no such method", status=501)))
            return
        group, answer = method
        if len(group) >= MAX_SIDE_CALLS:
            call.finish(status=status_of(Overloaded()))
        else:
            group.add(call)
            call.spawn(partial(self._answer, call, answer, group))

    def abandon(self) -> None:
        """End all calls but inferences; on the event loop."""
        for call in (*self._ordinary, *self._open_ended):
            call.abandon()

    async def _answer(self, call: Call, answer: _Stream, group: set[Call]) -> None:
        error: ProtocolError | None = None
        try:
            if not call.gone:
                await answer(call)
        except asyncio.CancelledError:
            error = Unavailable("the server is shutting down")
        except ProtocolError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - the protocol wants an answer whatever happens
            event(logger, "unexpected failure", level=logging.ERROR, error=type(failure).__name__,
                  where=origin(failure))  # fmt: skip
            error = ProtocolError("internal error", status=500)
        finally:
            group.discard(call)
        if error is not None:
            call.finish(status=status_of(error))


def _authorization(call: Call) -> bytes:
    value = dict(call.metadata).get("authorization", "")
    return value.encode() if isinstance(value, str) else value


def _methods(repository: Repository) -> dict[str, tuple[type[Message], _Answer]]:
    return {
        "ServerLive": (pb.ServerLiveRequest, lambda _: pb.ServerLiveResponse(live=True)),
        "ServerReady": (pb.ServerReadyRequest, lambda _: pb.ServerReadyResponse(ready=repository.ready)),
        "ModelReady": (pb.ModelReadyRequest, partial(_model_ready, repository)),
        "ServerMetadata": (pb.ServerMetadataRequest, _server_metadata),
        "ModelMetadata": (pb.ModelMetadataRequest, partial(_model_metadata, repository)),
        "ModelConfig": (pb.ModelConfigRequest, partial(_model_config, repository)),
        "ModelStatistics": (pb.ModelStatisticsRequest, partial(_model_statistics, repository)),
        "RepositoryIndex": (pb.RepositoryIndexRequest, partial(_repository_index, repository)),
        "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, _only_for_admins),
        "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, _only_for_admins),
    }


def _model_ready(repository: Repository, request: pb.ModelReadyRequest) -> Message:
    model = repository.known(request.name)
    try:
        model.find(request.version or None)
    except Unavailable:
        return pb.ModelReadyResponse(ready=False)
    return pb.ModelReadyResponse(ready=not repository.draining)


def _server_metadata(_: object) -> Message:
    return pb.ServerMetadataResponse(name="penstock-runtime", version=__version__, extensions=EXTENSIONS)


def _model_metadata(repository: Repository, request: pb.ModelMetadataRequest) -> Message:
    model = repository.known(request.name)
    described = model.find(request.version or None).schema.describe(model.name, list(model.versions), PLATFORM)
    return _from_dict(described, pb.ModelMetadataResponse())


def _model_config(repository: Repository, request: pb.ModelConfigRequest) -> Message:
    serving = repository.find(request.name, request.version or None)
    return _from_dict({"config": orjson.loads(serving.config)}, pb.ModelConfigResponse())


def _model_statistics(repository: Repository, request: pb.ModelStatisticsRequest) -> Message:
    if not request.name:
        servings = list(repository.servings)
    elif request.version:
        servings = [repository.find(request.name, request.version)]
    else:
        model = repository.known(request.name)
        model.find()
        servings = list(model.versions.values())
    return _from_dict({"model_stats": [each.describe_statistics() for each in servings]}, pb.ModelStatisticsResponse())


def _repository_index(repository: Repository, request: pb.RepositoryIndexRequest) -> Message:
    return _from_dict({"models": repository.index(request.ready)}, pb.RepositoryIndexResponse())


def _only_for_admins(_: object) -> NoReturn:
    raise ProtocolError("models are loaded and unloaded on the admin port, over HTTP", status=501)


def _from_dict(content: dict[str, Any], message: Message) -> Message:
    from google.protobuf.json_format import ParseDict

    return ParseDict(content, message)


def _parse(kind: type[Message], payload: bytes | None) -> Any:
    if payload is None:
        raise NO_MESSAGE
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise InvalidRequest(f"the message is no valid {kind.__name__}") from None


async def _first(call: Call, kind: type[Message]) -> Any:
    """Return the message of a call that has one."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return _parse(kind, await call.next())
    except TimeoutError:
        raise InvalidRequest(f"the message did not arrive within {BODY_SECONDS:g} s") from None


async def _answer_one(kind: type[Message], answer: _Answer, call: Call) -> None:
    call.finish(answer(await _first(call, kind)).SerializeToString())


async def _watch(watched: health.Health, call: Call) -> None:
    await watched.watch(call, await _first(call, health_pb2.HealthCheckRequest))


async def _reflect(call: Call) -> None:
    # Imported by those who look, and not on the event loop: serving must not pay for it.
    reflection, messages = await asyncio.to_thread(_import_reflection)
    servicer = reflection.ReflectionServicer((SERVICE, health.SERVICE, REFLECTIONS[0]))
    while (payload := await call.next()) is not None:
        request = _parse(messages.ServerReflectionRequest, payload)
        for answer in servicer.ServerReflectionInfo(iter((request,)), None):
            await call.send(answer.SerializeToString())
    call.finish()


def _import_reflection() -> tuple[Any, Any]:
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    return reflection, reflection_pb2
