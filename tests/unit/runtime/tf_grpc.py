"""TensorFlow Serving's gRPC interface before real ONNX models: its published messages on grpcio's own server.

The real server is not to be had from a package index.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from tests.unit.runtime.tf_serving import Refused, TfServing

_made: tuple[Any, Any] = grpc.protos_and_services("tests/unit/runtime/tf_serving.proto")
pb, services = _made

PREDICTION = "/tensorflow.serving.PredictionService/"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_FLOAT, _STRING, _INT64 = 1, 7, 9


def tensor_proto(array: np.ndarray[Any, Any], *, as_content: bool = False) -> Any:
    """Return a TensorProto of FP32, INT64 or texts: its elements one by one, or as bytes."""
    proto = pb.TensorProto(dtype={"f": _FLOAT, "i": _INT64, "O": _STRING}[array.dtype.kind])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    match array.dtype.kind:
        case "O":
            proto.string_val.extend(text.encode() for text in array.ravel())
        case _ if as_content:
            proto.tensor_content = array.tobytes()
        case "f":
            proto.float_val.extend(array.ravel().tolist())
        case "i":
            proto.int64_val.extend(array.ravel().tolist())
    return proto


def predict_request(*rows: Sequence[float], model: str = "m", **spec: Any) -> Any:
    """Return a PredictRequest of rows of numbers."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name=model, **spec))
    request.inputs["X"].CopyFrom(tensor_proto(np.array(rows, np.float32)))
    return request


def examples_request(kind: Any, *rows: Sequence[float]) -> Any:
    """Return a ClassificationRequest or RegressionRequest."""
    request = kind(model_spec=pb.ModelSpec(name="m"))
    for row in rows:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.extend(row)
    return request


class TfGrpc:
    """The gRPC port of `served`. `as_content`: whether numbers go out as bytes."""

    def __init__(self, served: TfServing, *, as_content: bool = False) -> None:
        self._served = served
        self._as_content = as_content
        self._server = grpc.server(ThreadPoolExecutor(8))
        services.add_PredictionServiceServicer_to_server(self, self._server)
        services.add_ModelServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.stop(None).wait(60)

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        proto = request.inputs["X"]
        rows = np.array(proto.float_val, np.float32).reshape([dim.size for dim in proto.tensor_shape.dim])
        outputs = self._run(request, context, rows)
        return pb.PredictResponse(
            model_spec=request.model_spec,
            outputs={name: tensor_proto(each, as_content=self._as_content) for name, each in outputs.items()},
        )

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = pb.ClassificationResponse(model_spec=request.model_spec)
        for row in self._run(request, context, _rows(request))["probabilities"]:
            classes = [pb.Class(label=f"kind {index}", score=score) for index, score in enumerate(row)]
            answer.result.classifications.add(classes=classes)
        return answer

    def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = pb.RegressionResponse(model_spec=request.model_spec)
        for row in self._run(request, context, _rows(request)).popitem()[1]:
            answer.result.regressions.add(value=row[0])
        return answer

    def GetModelMetadata(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.GetModelMetadataResponse(model_spec=request.model_spec)

    def GetModelStatus(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.GetModelStatusResponse(model_version_status=[pb.ModelVersionStatus(version=3, state=30)])

    def _run(self, request: Any, context: Any, rows: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        if request.model_spec.name != "m":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
        try:
            outputs = self._served.run(rows)
        except Refused as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return outputs


def _rows(request: Any) -> np.ndarray[Any, Any]:
    examples = request.input.example_list.examples
    return np.array([list(each.features.feature["x"].float_list.value) for each in examples], np.float32)
