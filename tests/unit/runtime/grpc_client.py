"""A plain gRPC client of the protocol, for tests: messages in, messages out, and what came with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.protocol.grpc.contents import FIELDS
from tests.unit.runtime.binary import to_bytes
from tests.unit.runtime.process import DEADLINE

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
Kind = grpc.StatusCode


@dataclass(frozen=True)
class Outcome:
    """How a call ended; `answer` is None unless it was OK."""

    code: grpc.StatusCode
    details: str
    metadata: dict[str, str]
    answer: Any


class Client:
    """One connection of its own to a server."""

    def __init__(self, port: int, trusted: bytes | None = None, **options: int) -> None:
        """Connect with the first call; over TLS if a certificate is `trusted`."""
        chosen = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1),
                  *((f"grpc.{name}", value) for name, value in options.items())]  # fmt: skip
        address = f"127.0.0.1:{port}"
        self.channel: Any = (
            grpc.insecure_channel(address, chosen)
            if trusted is None
            else grpc.secure_channel(address, grpc.ssl_channel_credentials(trusted), chosen)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(
        self,
        path: str,
        payload: bytes,
        kind: type[Message],
        timeout: float = DEADLINE,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Outcome:
        """Call a method with raw bytes and wait for its end."""
        method = self.channel.unary_unary(path, None, kind.FromString)
        try:
            answer, call = method.with_call(payload, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            failed: Any = error
            return Outcome(failed.code(), failed.details(), _metadata(failed), None)
        return Outcome(call.code(), call.details(), _metadata(call), answer)

    def ask(self, name: str, request: Message | None = None) -> Outcome:
        """Call a method of the inference service."""
        kinds: Any = pb
        payload = b"" if request is None else request.SerializeToString()
        return self.call(SERVICE + name, payload, getattr(kinds, f"{name}Response"))

    def infer(self, request: pb.ModelInferRequest, timeout: float = DEADLINE, **metadata: str) -> Outcome:
        """Call ModelInfer."""
        payload = request.SerializeToString()
        return self.call(INFER, payload, pb.ModelInferResponse, timeout, tuple(metadata.items()))

    def start(self, request: pb.ModelInferRequest, timeout: float = DEADLINE) -> Any:
        """Call ModelInfer and return its future."""
        method = self.channel.unary_unary(INFER, None, pb.ModelInferResponse.FromString)
        return method.future(request.SerializeToString(), timeout=timeout)

    def check(self, service: str = "") -> Outcome:
        """Call Check of grpc.health.v1."""
        payload = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        return self.call("/grpc.health.v1.Health/Check", payload, health_pb2.HealthCheckResponse)

    def watch(self, service: str = "", timeout: float = DEADLINE) -> Any:
        """Call Watch and return the stream of its answers."""
        method = self.channel.unary_stream("/grpc.health.v1.Health/Watch", None,
                                           health_pb2.HealthCheckResponse.FromString)  # fmt: skip
        return method(health_pb2.HealthCheckRequest(service=service).SerializeToString(), timeout=timeout)

    def reflect(self, requests: Iterator[bytes], version: str = "v1alpha") -> Any:
        """Call the reflection service and return the stream of its answers."""
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        kind = reflection_pb2.ServerReflectionResponse
        return self.channel.stream_stream(path, None, kind.FromString)(requests, timeout=DEADLINE)


def _metadata(call: Any) -> dict[str, str]:
    return {item.key: item.value for item in call.initial_metadata() or ()}


def typed(name: str, datatype: str, shape: Sequence[int], flat: Sequence[Any]) -> Any:
    """Return one input with typed contents."""
    entry = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    elements = [item.encode() if isinstance(item, str) else item for item in flat]
    getattr(entry.contents, FIELDS[datatype]).extend(elements)
    return entry


def typed_request(*inputs: Any, model: str = "m", outputs: Sequence[str] = (), **more: Any) -> pb.ModelInferRequest:
    """Return a request of typed inputs."""
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    return pb.ModelInferRequest(model_name=model, inputs=inputs, outputs=wanted, **more)


def raw_request(tensors: Mapping[str, tuple[str, Sequence[int], Sequence[Any]]], **more: Any) -> pb.ModelInferRequest:
    """Return a request of raw inputs, from (datatype, shape, flat list) by name."""
    request = typed_request(**more)
    for name, (datatype, shape, flat) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(to_bytes(datatype, list(flat)))
    return request


def iris_typed(*rows: Sequence[float], **more: Any) -> pb.ModelInferRequest:
    """Return a typed request of rows of four numbers for the iris models."""
    return typed_request(typed("X", "FP32", [len(rows), 4], np.ravel(rows).tolist()), **more)


def iris_raw(*rows: Sequence[float], **more: Any) -> pb.ModelInferRequest:
    """The same, raw."""
    return raw_request({"X": ("FP32", [len(rows), 4], np.ravel(rows).tolist())}, **more)


def slow_request(loops: int, **more: Any) -> pb.ModelInferRequest:
    """Return a request that keeps the slow model busy for as many loops."""
    return typed_request(typed("n", "INT64", [1], [loops]), **more)
