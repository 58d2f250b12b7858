"""Every method that is served over gRPC, and who answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import orjson
from google.protobuf.message import Message

from penstock_runtime import __version__
from penstock_runtime.engine.session import PLATFORM
from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc.codes import status_of
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.grpc.health import SERVICE as HEALTH_SERVICE
from penstock_runtime.server.grpc.health import Health
from penstock_runtime.server.grpc.inference import Inferences
from penstock_runtime.server.grpc.side import Method, SideCalls, answering, parse
from penstock_runtime.server.repository.repository import Repository

SERVICE = "inference.GRPCInferenceService"
# The two are the same but for their names, and tools ask for either.
REFLECTIONS = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
EXTENSIONS = ("model_configuration", "statistics")

_INFER = f"/{SERVICE}/ModelInfer".encode()
_Answer = Callable[[Any], Message]


class Services:
    """Takes every call. Inference is answered in the server's thread where it can be, all else on the event loop."""

    def __init__(self, inferences: Inferences) -> None:
        """Put them together."""
        repository = inferences.repository
        self.inferences = inferences
        self.health = Health(partial(_serves, repository))
        methods: dict[str, Method] = {
            **self.health.methods,
            **{f"/{SERVICE}/{name}": answering(*method) for name, method in _methods(repository).items()},
            **{f"/{name}/ServerReflectionInfo": Method(_reflect, lasts=True) for name in REFLECTIONS},
        }
        self._others = SideCalls({path.encode(): method for path, method in methods.items()}.get)

    def take(self, call: Call) -> None:
        """Have a call that has arrived answered."""
        if call.method == _INFER:
            self.inferences.take(call)
        else:
            self._others.take(call)

    def refuse(self, call: Call, error: ProtocolError) -> None:
        """Answer a call that nobody may make."""
        if call.method == _INFER:
            self.inferences.refuse(call, error)
        else:
            call.finish(status=status_of(error))

    def abandon(self) -> None:
        """End all calls but inferences; on the event loop."""
        self._others.abandon()


def _serves(repository: Repository, service: str) -> bool | None:
    if not service:
        return repository.ready
    model = repository.models.get(service)
    if model is None:
        return None
    try:
        model.find(None)
    except ProtocolError:
        return False
    return repository.why_none_ready() is None


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
    return pb.ModelReadyResponse(ready=repository.why_none_ready() is None)


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


async def _reflect(call: Call) -> None:
    # Imported by those who look, and not on the event loop: serving must not pay for it.
    reflection, messages = await asyncio.to_thread(_import_reflection)
    servicer = reflection.ReflectionServicer((SERVICE, HEALTH_SERVICE, REFLECTIONS[0]))
    while (payload := await call.next()) is not None:
        request = parse(messages.ServerReflectionRequest, payload)
        for answer in servicer.ServerReflectionInfo(iter((request,)), None):
            await call.send(answer.SerializeToString())
    call.finish()


def _import_reflection() -> tuple[Any, Any]:
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    return reflection, reflection_pb2
