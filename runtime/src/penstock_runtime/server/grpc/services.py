"""Every method that is served over gRPC, and who answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import grpc
import orjson
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from penstock_runtime import __version__
from penstock_runtime.engine.session import PLATFORM
from penstock_runtime.protocol.errors import InvalidRequest, Overloaded, ProtocolError, Unavailable
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc import health
from penstock_runtime.server.grpc.codes import refuse
from penstock_runtime.server.grpc.inference import Inferences
from penstock_runtime.server.grpc.models import Models
from penstock_runtime.server.grpc.threads import Arrivals, Call, Threads

SERVICE = "inference.GRPCInferenceService"
# The two are the same but for their names, and tools ask for either.
REFLECTIONS = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
EXTENSIONS = ("model_configuration", "statistics")
# All but inference: probes, and people who look. Reflection takes a thread for as long as someone looks.
MAX_SIDE_CALLS = 64
MAX_REFLECTIONS = 8
THREADS = 4
MAX_THREADS = 256

_INFER = f"/{SERVICE}/ModelInfer"
Answer = Callable[[Any, grpc.ServicerContext], Message]
OnLoop = Callable[[Callable[[], Any]], Any]


class Services(grpc.GenericRpcHandler):
    """Tells grpcio the handler of each call, and `arrivals` the threads for it."""

    def __init__(self, arrivals: Arrivals, inferences: Inferences, threads: Threads, watched: health.Health) -> None:
        """ModelInfer goes to `inferences` in `threads`, all else to other threads, so that probes need not wait."""
        self._arrivals = arrivals
        self.inferences = inferences
        self._threads = threads
        self.side_threads = Threads("grpc-side", 2, MAX_SIDE_CALLS)
        self.side_calls: set[Call] = set()
        self._reflections: set[Call] = set()
        self._handlers = {
            **{f"/{SERVICE}/{name}": _unary(*method) for name, method in _methods(inferences).items()},
            f"/{health.SERVICE}/Check": _unary(health_pb2.HealthCheckRequest, watched.check),
            f"/{health.SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(_Watch(watched), None, _serialized),
        }
        reflection: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(_reflect)
        self._reflection = {f"/{name}/ServerReflectionInfo": reflection for name in REFLECTIONS}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a call that has arrived; None is answered with UNIMPLEMENTED."""
        method = handler_call_details.method
        if method == _INFER:
            call, handler = self.inferences.admit()
            self._arrivals.coming = self._threads, call
            return handler
        group, most = self.side_calls, MAX_SIDE_CALLS
        side = self._handlers.get(method)
        if side is None:
            group, most = self._reflections, MAX_REFLECTIONS
            side = self._reflection.get(method)
        if side is None:
            return None
        refused = len(group) >= most
        self._arrivals.coming = self.side_threads, Call(group, refused)
        return grpc.stream_unary_rpc_method_handler(_refuse_all) if refused else side


def _methods(inferences: Inferences) -> dict[str, tuple[type[Message], Answer]]:
    models, on_loop = inferences.models, inferences.on_loop
    return {
        "ServerLive": (pb.ServerLiveRequest, lambda _, __: pb.ServerLiveResponse(live=True)),
        "ServerReady": (pb.ServerReadyRequest, lambda _, __: pb.ServerReadyResponse(ready=models.ready)),
        "ModelReady": (pb.ModelReadyRequest, partial(_model_ready, models)),
        "ServerMetadata": (pb.ServerMetadataRequest, _server_metadata),
        "ModelMetadata": (pb.ModelMetadataRequest, partial(_model_metadata, models)),
        "ModelConfig": (pb.ModelConfigRequest, partial(_model_config, models)),
        "ModelStatistics": (pb.ModelStatisticsRequest, partial(_model_statistics, models, on_loop)),
        "RepositoryIndex": (pb.RepositoryIndexRequest, partial(_repository_index, models, on_loop)),
        "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, _only_for_admins),
        "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, _only_for_admins),
    }


def _model_ready(models: Models, request: pb.ModelReadyRequest, _: object) -> Message:
    model = models.known(request.name)
    try:
        model.find(request.version or None)
    except Unavailable:
        return pb.ModelReadyResponse(ready=False)
    return pb.ModelReadyResponse(ready=not models.draining)


def _server_metadata(_: object, __: object) -> Message:
    return pb.ServerMetadataResponse(name="penstock-runtime", version=__version__, extensions=EXTENSIONS)


def _model_metadata(models: Models, request: pb.ModelMetadataRequest, _: object) -> Message:
    serving = models.known(request.name).find(request.version or None)
    described = serving.schema.describe(serving.name, serving.version, PLATFORM)
    return _from_dict(described, pb.ModelMetadataResponse())


def _model_config(models: Models, request: pb.ModelConfigRequest, _: object) -> Message:
    serving = models.known(request.name).find(request.version or None)
    return _from_dict({"config": orjson.loads(serving.config)}, pb.ModelConfigResponse())


def _model_statistics(models: Models, on_loop: OnLoop, request: pb.ModelStatisticsRequest, _: object) -> Message:
    described = on_loop(partial(models.statistics, request.name, request.version or None))
    return _from_dict({"model_stats": described}, pb.ModelStatisticsResponse())


def _repository_index(models: Models, on_loop: OnLoop, request: pb.RepositoryIndexRequest, _: object) -> Message:
    return _from_dict({"models": on_loop(partial(models.index, request.ready))}, pb.RepositoryIndexResponse())


def _only_for_admins(_: object, __: object) -> NoReturn:
    raise ProtocolError("models are loaded and unloaded on the admin port, over HTTP", status=501)


def _from_dict(content: dict[str, Any], message: Message) -> Message:
    from google.protobuf.json_format import ParseDict

    return ParseDict(content, message)


def _unary(kind: type[Message], answer: Answer) -> grpc.RpcMethodHandler[Any, Any]:
    def handle(payload: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(_parse(kind, payload), context).SerializeToString()
        except ProtocolError as error:
            return refuse(context, error)

    return grpc.unary_unary_rpc_method_handler(handle)


def _parse(kind: type[Message], payload: bytes) -> Any:
    # Not left to grpcio, for which a malformed message is an INTERNAL error.
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise InvalidRequest(f"the message is no valid {kind.__name__}") from None


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _refuse_all(_: object, context: grpc.ServicerContext) -> NoReturn:
    refuse(context, Overloaded())


class _Watch:
    """Watch as grpcio wants it where a stream must not take a thread: what to send is given to a function."""

    experimental_non_blocking = True

    def __init__(self, watched: health.Health) -> None:
        self._health = watched

    def __call__(self, payload: bytes, context: grpc.ServicerContext, send: health.Send) -> None:
        try:
            request = _parse(health_pb2.HealthCheckRequest, payload)
        except ProtocolError as error:
            refuse(context, error)
        self._health.watch(request, context, send)


def _reflect(payloads: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    # Imported by those who look: serving must not pay for it.
    from grpc_reflection.v1alpha.reflection import ReflectionServicer
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

    servicer = ReflectionServicer((SERVICE, health.SERVICE, REFLECTIONS[0]))
    try:
        requests = (_parse(ServerReflectionRequest, payload) for payload in payloads)
        for answer in servicer.ServerReflectionInfo(requests, context):
            yield answer.SerializeToString()
    except ProtocolError as error:
        refuse(context, error)
