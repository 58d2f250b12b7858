"""An agent before TensorFlow Serving's gRPC interface: messages and stubs are those that TensorFlow's authors publish.

The server itself cannot be had from a package index: what answers here is a few lines behind their interface.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    input_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from conformance.conftest import Served, Server

# Scores by row, and so the classes 2 and 0.
SCORES = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
_TYPES: list[tuple[int, str, Any]] = [
    (types_pb2.DT_FLOAT, "float_val", np.float32),
    (types_pb2.DT_DOUBLE, "double_val", np.float64),
    (types_pb2.DT_HALF, "half_val", np.float16),
]
_INTEGERS: list[tuple[int, str, Any]] = [
    (types_pb2.DT_INT8, "int_val", np.int8),
    (types_pb2.DT_INT16, "int_val", np.int16),
    (types_pb2.DT_INT32, "int_val", np.int32),
    (types_pb2.DT_INT64, "int64_val", np.int64),
    (types_pb2.DT_UINT8, "int_val", np.uint8),
    (types_pb2.DT_UINT16, "int_val", np.uint16),
    (types_pb2.DT_UINT32, "uint32_val", np.uint32),
    (types_pb2.DT_UINT64, "uint64_val", np.uint64),
]


class Upstream(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """Answers a PredictRequest with what it has as inputs."""

    def Predict(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return predict_pb2.PredictResponse(model_spec=request.model_spec, outputs=request.inputs)

    def Classify(self, request: Any, _context: Any) -> Any:  # noqa: N802
        answer = classification_pb2.ClassificationResponse(model_spec=request.model_spec)
        for row in SCORES:
            classes = answer.result.classifications.add().classes
            for name, score in zip(("a", "b", "c"), row, strict=True):
                classes.add(label=name, score=score)
        return answer

    def Regress(self, request: Any, _context: Any) -> Any:  # noqa: N802
        answer = regression_pb2.RegressionResponse(model_spec=request.model_spec)
        answer.result.regressions.add(value=0.5)
        return answer

    def GetModelMetadata(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)


class Status(BaseHTTPRequestHandler):
    """The one answer of the REST interface by which the agent knows that the model is there."""

    def do_GET(self) -> None:
        found = self.path == "/v1/models/m"
        body = json.dumps({"model_version_status": [{"version": "1", "state": "AVAILABLE"}]} if found else {}).encode()
        self.send_response_only(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """An agent before both."""
    upstream = grpc.server(ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Upstream(), upstream)
    port = upstream.add_insecure_port("127.0.0.1:0")
    upstream.start()
    status = HTTPServer(("127.0.0.1", 0), Status)
    thread = threading.Thread(target=status.serve_forever, args=(0.01,))
    thread.start()
    agent = Server("--upstream", f"http://127.0.0.1:{status.server_port}", "--upstream-grpc", f"127.0.0.1:{port}",
                   "--model-name", "m", "--drain-seconds", "0", command="agent")  # fmt: skip
    try:
        yield agent.ready()
        assert [line for line in agent.end() if line["level"] == "error"] == []
    finally:
        agent.kill()
        status.shutdown()
        status.server_close()
        thread.join()
        upstream.stop(None).wait()


@pytest.fixture
def stub(served: Served) -> Iterator[Any]:
    assert served.grpc is not None
    with grpc.insecure_channel(served.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def tensor(dtype: int, field: str, array: np.ndarray[Any, Any], *, as_content: bool) -> Any:
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if as_content:
        proto.tensor_content = array.tobytes()
    else:
        bits = array.view(np.uint16) if array.dtype == np.float16 else array
        getattr(proto, field).extend(bits.ravel().tolist())
    return proto


def predict(stub: Any, **outputs: Any) -> tuple[Any, str]:
    """Return the answer and its prediction id."""
    request = predict_pb2.PredictRequest(inputs=outputs)
    request.model_spec.name = "m"
    request.model_spec.version.value = 1
    request.model_spec.signature_name = "serving_default"
    answer, call = stub.Predict.with_call(request, timeout=60)
    assert answer == predict_pb2.PredictResponse(model_spec=request.model_spec, outputs=outputs)
    return answer, id_of(call)


def id_of(call: Any) -> str:
    return str(dict(call.initial_metadata())["penstock-prediction-id"])


def confusion(served: Served, prediction: str, label: object) -> dict[str, Any]:
    """Send a label, and return what became of it."""
    body = json.dumps([{"id": prediction, "label": label}]).encode()
    url = f"http://{served.admin}/v2/models/m/feedback"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as reply:
        result: dict[str, Any] = json.load(reply)
    return result


def judged(served: Served) -> tuple[float, float]:
    """Return how many labels were right and wrong so far."""
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=60) as reply:
        lines = reply.read().decode().splitlines()
    found = [line for line in lines if line.startswith("penstock_feedback_total{")]
    return tuple(
        sum(float(line.split()[-1]) for line in found if f'result="{result}"' in line)
        for result in ("correct", "incorrect")
    )  # type: ignore[return-value]


def assert_predicted(served: Served, prediction: str, truth: object) -> None:
    """Assert that this is what the agent read in the answer."""
    correct, incorrect = judged(served)
    assert confusion(served, prediction, truth)["accepted"] == 1
    assert judged(served) == (correct + np.size(np.array(truth)), incorrect)


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize(("dtype", "field", "kind"), _TYPES)
def test_the_best_score_is_read_in_every_type_and_form(
    served: Served, stub: Any, dtype: int, field: str, kind: Any, as_content: bool
) -> None:
    _, prediction = predict(stub, scores=tensor(dtype, field, SCORES.astype(kind), as_content=as_content))
    assert_predicted(served, prediction, [2, 0])


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize(("dtype", "field", "kind"), _INTEGERS)
def test_classes_are_read_in_every_type_and_form(
    served: Served, stub: Any, dtype: int, field: str, kind: Any, as_content: bool
) -> None:
    classes = tensor(dtype, field, np.array([7, 3], kind), as_content=as_content)
    scores = tensor(types_pb2.DT_FLOAT, "float_val", SCORES.astype(np.float32), as_content=as_content)
    _, prediction = predict(stub, a_scores=scores, classes=classes)
    assert_predicted(served, prediction, [7, 3])


def test_texts_are_read(served: Served, stub: Any) -> None:
    texts = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"cat", "hündin".encode()])
    texts.tensor_shape.dim.add(size=2)
    _, prediction = predict(stub, scores=tensor(1, "float_val", SCORES.astype(np.float32), as_content=True), kind=texts)
    assert_predicted(served, prediction, ["cat", "hündin"])


def test_classifications_and_regressions(served: Served, stub: Any) -> None:
    example = input_pb2.Input()
    request = classification_pb2.ClassificationRequest(input=example)
    request.model_spec.name = "m"
    _, call = stub.Classify.with_call(request, timeout=60)
    assert_predicted(served, id_of(call), ["c", "a"])
    asked = regression_pb2.RegressionRequest(model_spec=request.model_spec, input=example)
    answer, call = stub.Regress.with_call(asked, timeout=60)
    assert answer.result.regressions[0].value == 0.5
    assert confusion(served, id_of(call), 0.75)["accepted"] == 1


def test_metadata_passes_and_has_no_id(stub: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "m"
    answer, call = stub.GetModelMetadata.with_call(request, timeout=60)
    assert answer.model_spec.name == "m"
    assert call.initial_metadata() == ()
