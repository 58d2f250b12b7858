"""Answers over gRPC: those of the Open Inference Protocol, and of TensorFlow Serving's PredictionService."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError, Message

from penstock_runtime.protocol.answer import Output
from penstock_runtime.protocol.binary_data import read_tensor
from penstock_runtime.protocol.grpc import passing_pb2 as pb
from penstock_runtime.protocol.grpc.contents import read_contents
from penstock_runtime.protocol.grpc.inference_pb2 import ModelInferRequest, ModelInferResponse
from penstock_runtime.protocol.schema import TensorSpec
from penstock_runtime.server.agent.paths import Inference
from penstock_runtime.server.agent.tfserving import VALUES, Columns, columns_of_scores

Array = np.ndarray[Any, Any]

# A tensor may say that one element stands for all that its shape has: for so many at most.
MAX_ELEMENTS = 2**18


class _Type(NamedTuple):
    """A data type of TensorFlow: what the protocol calls it, and the field of its elements."""

    datatype: str
    field: str


# By the numbers of types.proto.
_TYPES = {
    1: _Type("FP32", "float_val"), 2: _Type("FP64", "double_val"), 3: _Type("INT32", "int_val"),
    4: _Type("UINT8", "int_val"), 5: _Type("INT16", "int_val"), 6: _Type("INT8", "int_val"),
    7: _Type("BYTES", "string_val"), 9: _Type("INT64", "int64_val"), 10: _Type("BOOL", "bool_val"),
    17: _Type("UINT16", "int_val"), 19: _Type("FP16", "half_val"), 22: _Type("UINT32", "uint32_val"),
    23: _Type("UINT64", "uint64_val"),
}  # fmt: skip
_UNKNOWN = _Type("unknown", "")


def meant_by(inference: Inference, payload: bytes) -> tuple[str, bool]:
    """Return the model that a request names, and whether it names a version; raises DecodeError if it is no message."""
    if inference.protocol == "oip":
        asked = pb.InferRequest.FromString(payload)
        return asked.model_name, bool(asked.model_version)
    spec = pb.TensorFlowRequest.FromString(payload).model_spec
    return spec.name, spec.WhichOneof("version_choice") is not None


class InferAnswer:
    """A ModelInferResponse. `specs`: its outputs."""

    def __init__(self, payload: bytes) -> None:
        """Parse it; raises ValueError if it is none."""
        self._message = _parse(ModelInferResponse, payload)
        self.specs = _specs(self._message.outputs)

    def read(self, wanted: Container[str] | None = None) -> dict[str, Output]:
        """Return the outputs that are `wanted` (None: all) by name; raises InvalidRequest or ValueError."""
        tensors = _read_tensors(self._message.outputs, self.specs, self._message.raw_output_contents, wanted)
        return {spec.name: Output(array, finite=False) for spec, array in tensors}


def read_inputs(payload: bytes) -> list[tuple[TensorSpec, Array]]:
    """Return the inputs in a ModelInferRequest; raises InvalidRequest or ValueError if it is none."""
    message = _parse(ModelInferRequest, payload)
    return list(_read_tensors(message.inputs, _specs(message.inputs), message.raw_input_contents, None))


def _parse(kind: type[Message], payload: bytes) -> Any:
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise ValueError(f"no {kind.__name__}") from None


def _specs(entries: Iterable[Any]) -> tuple[TensorSpec, ...]:
    specs = tuple(TensorSpec(each.name, each.datatype, tuple(each.shape)) for each in entries)
    if any(dim < 0 for spec in specs for dim in spec.shape or ()):
        raise ValueError("a negative size")
    return specs


def _read_tensors(
    entries: Any, specs: Sequence[TensorSpec], raw: Sequence[bytes], wanted: Container[str] | None
) -> Iterator[tuple[TensorSpec, Array]]:
    if raw and len(raw) != len(specs):
        raise ValueError("not as many raw contents as tensors")
    for index, spec in enumerate(specs):
        if wanted is None or spec.name in wanted:
            shape = list(spec.shape or ())
            if raw:
                yield spec, read_tensor(raw[index], shape, spec)
            else:
                yield spec, read_contents(entries[index].contents, shape, spec)


class PredictAnswer:
    """A PredictResponse. `rows` are those of its first output by name; `specs`: what there is to decide by.

    Classes are only those outputs of integers and texts that have one a row.
    """

    def __init__(self, payload: bytes) -> None:
        """Parse it; raises ValueError if it is none."""
        self._outputs = _parse(pb.PredictResponse, payload).outputs
        names = sorted(self._outputs)
        shapes = {name: _shape(self._outputs[name]) for name in names}
        first = shapes[names[0]] if names else []
        self.rows = first[0] if first else 1
        specs = (TensorSpec(name, _type(self._outputs[name]).datatype, tuple(shapes[name])) for name in names)
        self.specs = tuple(
            spec for spec in specs if spec.datatype.startswith("FP") or math.prod(spec.shape or ()) == self.rows
        )

    def read(self, name: str) -> Array:
        """Return the tensor of that name; raises ValueError if its type is not known, or it is not whole."""
        return read_tensor_proto(self._outputs[name])


def read_tensor_proto(tensor: pb.Tensor) -> Array:
    """Return the tensor; raises ValueError.

    Its elements come as bytes, or one by one. The last one of those stands for all that are missing, as TensorFlow
    has it.
    """
    datatype, field = _type(tensor)
    shape = _shape(tensor)
    count = math.prod(shape)
    if not field:
        raise ValueError(f"a tensor of TensorFlow's type {tensor.dtype}, which is not known here")
    if datatype == "BYTES":
        return _filled(np.array([raw.decode() for raw in tensor.string_val], np.object_), shape, count)
    dtype = TensorSpec("", datatype, None).dtype
    if tensor.tensor_content:
        # Little-endian where it was written, as on every machine that has TensorFlow Serving.
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = getattr(tensor, field)
    if datatype == "FP16":
        # Its bits, each in an integer.
        return _filled(np.array(values, np.int32).astype(np.uint16).view(dtype), shape, count)
    return _filled(np.array(values, np.int32 if field == "int_val" else dtype).astype(dtype), shape, count)


def _filled(values: Array, shape: list[int], count: int) -> Array:
    if 0 < len(values) < count:
        if count > MAX_ELEMENTS:
            raise ValueError(f"a tensor of {count} elements, most of which it does not say")
        values = np.concatenate((values, np.repeat(values[-1:], count - len(values))))
    return values.reshape(shape)


def _type(tensor: pb.Tensor) -> _Type:
    return _TYPES.get(tensor.dtype, _UNKNOWN)


def _shape(tensor: pb.Tensor) -> list[int]:
    shape = [int(dim.size) for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or any(dim < 0 for dim in shape):
        raise ValueError("a tensor without a shape")
    return shape


def read_results(payload: bytes, verb: str) -> Columns:
    """Return the outputs of a ClassificationResponse or RegressionResponse; raises ValueError if it is none."""
    if verb == "classify":
        answer = _parse(pb.ClassificationResponse, payload)
        return columns_of_scores([[(each.label, each.score) for each in row.classes]
                                  for row in answer.result.classifications])  # fmt: skip
    rows = [each.value for each in _parse(pb.RegressionResponse, payload).result.regressions]
    return Columns(len(rows), {VALUES: rows})


def read_values(payload: bytes, verb: str) -> Mapping[str, Any]:
    """Return the outputs of a PredictResponse as its messages, of another answer as columns; raises ValueError."""
    outputs: Mapping[str, Any] = (
        _parse(pb.PredictResponse, payload).outputs if verb == "predict" else read_results(payload, verb).values
    )
    return outputs
