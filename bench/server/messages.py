"""The messages of a gRPC inference, from the protocol's published field numbers: as much as the benchmark needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_PACKAGE = "penstock.bench.inference"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _message(file: Any, name: str, fields: Sequence[tuple[str, int, int, bool, str]]) -> None:
    message = file.message_type.add(name=name)
    for field, number, kind, repeated, of in fields:
        message.field.add(
            name=field, number=number, type=kind, type_name=f".{_PACKAGE}.{of}" if of else None,
            label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
        )  # fmt: skip


def _classes() -> dict[str, Any]:
    # A package of its own, so that it can live beside another description of the same protocol in one process.
    file = descriptor_pb2.FileDescriptorProto(name="penstock_bench.proto", package=_PACKAGE, syntax="proto3")
    tensor = [("name", 1, _FIELD.TYPE_STRING, False, ""), ("datatype", 2, _FIELD.TYPE_STRING, False, ""),
              ("shape", 3, _FIELD.TYPE_INT64, True, "")]  # fmt: skip
    _message(file, "Tensor", tensor)
    _message(file, "ModelInferRequest", [
        ("model_name", 1, _FIELD.TYPE_STRING, False, ""),
        ("inputs", 5, _FIELD.TYPE_MESSAGE, True, "Tensor"),
        ("raw_input_contents", 7, _FIELD.TYPE_BYTES, True, ""),
    ])  # fmt: skip
    _message(file, "ModelInferResponse", [
        ("model_name", 1, _FIELD.TYPE_STRING, False, ""),
        ("model_version", 2, _FIELD.TYPE_STRING, False, ""),
        ("outputs", 5, _FIELD.TYPE_MESSAGE, True, "Tensor"),
        ("raw_output_contents", 6, _FIELD.TYPE_BYTES, True, ""),
    ])  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes: dict[str, Any] = message_factory.GetMessageClassesForFiles([file.name], pool)
    return classes


_CLASSES = _classes()
ModelInferRequest: Any = _CLASSES[f"{_PACKAGE}.ModelInferRequest"]
ModelInferResponse: Any = _CLASSES[f"{_PACKAGE}.ModelInferResponse"]
