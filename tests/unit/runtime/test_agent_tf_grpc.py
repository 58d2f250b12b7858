"""An agent before TensorFlow Serving's gRPC interface: what is read of messages, counted, compared with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.protocol.grpc import inference_pb2
from penstock_runtime.protocol.grpc import passing_pb2 as passing
from penstock_runtime.server.agent import messages
from penstock_runtime.server.agent.paths import Inference
from penstock_runtime.server.agent.reading import MAX_BYTES, Reader, Reading
from penstock_runtime.server.settings import Feedback, read_feedback
from tests.unit.runtime.conftest import StartAgent, StartTf
from tests.unit.runtime.forwarding import NONE
from tests.unit.runtime.grpc_client import Client, Kind, Outcome
from tests.unit.runtime.process import SETOSA, VIRGINICA, AgentProcess, Server
from tests.unit.runtime.scrape import requests_by_outcome, sample
from tests.unit.runtime.tf_grpc import PREDICTION, STATUS, TfGrpc, examples_request, pb, predict_request, tensor_proto

ID = "penstock-prediction-id"
PREDICT = Inference("tfserving", "predict", versioned=False)
StartBoth = Callable[..., AgentProcess]


@pytest.fixture
def start_both(start_tf: StartTf, start_agent: StartAgent) -> Iterator[StartBoth]:
    """Start agents before both interfaces of one server, of some outputs of a model."""
    started: list[TfGrpc] = []

    def start(model: str, *columns: str, as_content: bool = False, **env: str) -> AgentProcess:
        served = start_tf(model, *columns)
        started.append(TfGrpc(served, as_content=as_content))
        return start_agent(served.url, "--upstream-grpc", started[-1].address, **env).ready()

    yield start
    for server in started:
        server.close()


def ask(agent: Server, method: str, request: Any, kind: Any) -> Outcome:
    path = method if method.startswith("/") else PREDICTION + method
    with Client(agent.grpc_port) as client:
        return client.call(path, request.SerializeToString(), kind)


def predict(agent: Server, *rows: list[float], **more: Any) -> Outcome:
    return ask(agent, "Predict", predict_request(*rows, **more), pb.PredictResponse)


def accepted(agent: Server, answer: Outcome, value: object) -> int:
    assert answer.code == Kind.OK, answer
    count: int = agent.feedback([{"id": answer.metadata[ID], "label": value}]).json["accepted"]
    return count


def counts(agent: Server) -> tuple[float, ...]:
    return tuple(sample(agent, "penstock_feedback_total", result=result, cohort="none")
                 for result in ("correct", "incorrect"))  # fmt: skip


@pytest.mark.parametrize("as_content", [False, True])
def test_labels_are_compared_with_scores_of_either_form(start_both: StartBoth, as_content: bool) -> None:
    agent = start_both("iris", "probabilities", as_content=as_content)
    answer = predict(agent, SETOSA, VIRGINICA)
    assert [dim.size for dim in answer.answer.outputs["probabilities"].tensor_shape.dim] == [2, 3]
    assert accepted(agent, answer, [0, 2]) == 1
    assert accepted(agent, predict(agent, SETOSA), 1) == 1
    assert counts(agent) == (2, 1)
    assert sample(agent, "penstock_prediction_total", **{"class": "0"}) == 2


def test_of_several_outputs_the_same_decides_as_over_http(start_both: StartBoth) -> None:
    agent = start_both("iris", "probabilities", "label")
    assert accepted(agent, predict(agent, VIRGINICA), 2) == 1
    chosen = start_both("iris", "probabilities", "label", PENSTOCK_FEEDBACK='{"output": "probabilities"}')
    assert accepted(chosen, predict(chosen, VIRGINICA), 2) == 1
    assert counts(agent) == counts(chosen) == (1, 0)


def test_classifications_give_the_best_label_and_regressions_the_number(start_both: StartBoth) -> None:
    agent = start_both("iris", "probabilities")
    request = examples_request(pb.ClassificationRequest, SETOSA, VIRGINICA)
    assert accepted(agent, ask(agent, "Classify", request, pb.ClassificationResponse), ["kind 0", "kind 1"]) == 1
    assert counts(agent) == (1, 1)
    regression = start_both("regression", "variable", PENSTOCK_FEEDBACK='{"tolerance": 0.5}')
    answer = ask(regression, "Regress", examples_request(pb.RegressionRequest, SETOSA), pb.RegressionResponse)
    assert accepted(regression, answer, answer.answer.result.regressions[0].value + 0.25) == 1
    assert sample(regression, "penstock_feedback_error_sum") == pytest.approx(0.25, abs=1e-6)


def test_counted_is_inference_with_this_model_and_nothing_else(start_both: StartBoth) -> None:
    agent = start_both("iris", "probabilities")
    assert predict(agent, SETOSA).code == Kind.OK
    assert predict(agent, SETOSA, version_label="stable", signature_name="serving_default").code == Kind.OK
    refused = predict(agent, [1.0])
    assert (refused.code, ID in refused.metadata) == (Kind.INVALID_ARGUMENT, False)
    other = predict(agent, SETOSA, model="other")
    assert (other.code, other.details) == (Kind.NOT_FOUND, "Servable not found for request: other")
    spec = pb.ModelSpec(name="m")
    described = ask(agent, "GetModelMetadata", pb.GetModelMetadataRequest(model_spec=spec), pb.GetModelMetadataResponse)
    assert described.answer.model_spec == spec
    status = ask(agent, STATUS, pb.GetModelStatusRequest(model_spec=spec), pb.GetModelStatusResponse)
    assert status.answer.model_version_status[0].version == 3
    # It is no server of that protocol, and says so itself.
    with Client(agent.grpc_port) as client:
        assert client.infer(inference_pb2.ModelInferRequest(model_name="m")).code == Kind.UNIMPLEMENTED
    assert requests_by_outcome(agent) == {**NONE, "ok": 2, "client_error": 1}


def read(answer: Any, spec: dict[str, Any] | None = None, verb: str = "predict") -> Reading:
    reader = Reader(Feedback() if spec is None else read_feedback(spec))
    reading = reader.read_message(Inference("tfserving", verb, versioned=False), answer.SerializeToString())
    return Reading(reading.rows, list(reading.predictions))


def response(**outputs: Any) -> Any:
    protos = {name: each if isinstance(each, pb.TensorProto) else tensor_proto(np.array(each))
              for name, each in outputs.items()}  # fmt: skip
    return pb.PredictResponse(outputs=protos)


TEXTS = np.array(["cat", "dog"], object)
FLOATS = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)


@pytest.mark.parametrize(
    ("answer", "spec", "rows", "predictions"),
    [
        (response(a=FLOATS), {}, 2, [1, 0]),
        (response(a=FLOATS[:, :1]), {"threshold": 0.5}, 2, [0, 1]),
        (response(a=FLOATS[:, 1]), {}, 2, [float(np.float32(0.9)), float(np.float32(0.2))]),
        (response(a=[3, 1]), {}, 2, [3, 1]),
        (response(b=TEXTS, a=FLOATS), {}, 2, ["cat", "dog"]),
        (response(b=TEXTS, a=FLOATS), {"output": "a"}, 2, [1, 0]),
        (response(b=[[1, 2], [3, 4]], a=FLOATS), {}, 2, [1, 0]),
        (response(a=FLOATS), {"output": "missing"}, 2, []),
        (response(), {}, 1, []),
        (response(a=pb.TensorProto(dtype=14, tensor_shape=tensor_proto(FLOATS).tensor_shape)), {}, 2, []),
        (pb.RegressionResponse(), {}, 1, []),
    ],
)
def test_predictions(answer: Any, spec: dict[str, Any], rows: int, predictions: list[Any]) -> None:
    assert read(answer, spec) == Reading(rows, predictions)


def test_classes_without_labels_are_told_by_their_place() -> None:
    answer = pb.ClassificationResponse()
    answer.result.classifications.add(classes=[pb.Class(score=0.2), pb.Class(score=0.8)])
    assert read(answer, verb="classify") == Reading(1, [1])


@pytest.mark.parametrize(
    ("dtype", "field", "given", "expected"),
    [
        (1, "float_val", [0.5, 2.0], np.float32),
        (2, "double_val", [0.1, 2.0], np.float64),
        (3, "int_val", [-1, 2**31 - 1], np.int32),
        (4, "int_val", [0, 255], np.uint8),
        (5, "int_val", [-(2**15), 7], np.int16),
        (6, "int_val", [-128, 127], np.int8),
        (9, "int64_val", [-(2**63), 1], np.int64),
        (10, "bool_val", [True, False], np.bool_),
        (17, "int_val", [0, 2**16 - 1], np.uint16),
        (22, "uint32_val", [0, 2**32 - 1], np.uint32),
        (23, "uint64_val", [0, 2**64 - 1], np.uint64),
    ],
)
def test_tensors_of_every_type_one_by_one_and_as_bytes(
    dtype: int, field: str, given: list[Any], expected: type[np.generic]
) -> None:
    array = np.array(given, expected)
    for elements in ({field: given}, {"tensor_content": array.tobytes()}):
        proto = pb.TensorProto(dtype=dtype, **elements)
        proto.tensor_shape.dim.add(size=2)
        found = messages.read_tensor_proto(passing.Tensor.FromString(proto.SerializeToString()))
        assert found.dtype == array.dtype
        assert found.tolist() == array.tolist()


def test_half_precision_comes_as_bits() -> None:
    array = np.array([0.5, -2.0, np.inf], np.float16)
    tensor = passing.Tensor(dtype=19, half_val=array.view(np.uint16).tolist())
    tensor.tensor_shape.dim.add(size=3)
    assert messages.read_tensor_proto(tensor).tolist() == array.tolist()


def test_the_last_element_stands_for_those_that_are_missing() -> None:
    tensor = passing.Tensor(dtype=1, float_val=[1.0, 2.0])
    tensor.tensor_shape.dim.extend(passing.Shape.Dim(size=size) for size in (2, 2))
    assert messages.read_tensor_proto(tensor).tolist() == [[1.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("shape", "elements"),
    [([2**40], {"float_val": [1.0]}), ([3], {}), ([1], {"float_val": [1.0, 2.0]}), ([-1], {"float_val": [1.0]}),
     ([2], {"tensor_content": bytes(7)}), ([2**33, 2**31], {"float_val": [1.0]})],
)  # fmt: skip
def test_what_is_no_tensor(shape: list[int], elements: dict[str, Any]) -> None:
    tensor = passing.Tensor(dtype=1, **elements)
    tensor.tensor_shape.dim.extend(passing.Shape.Dim(size=size) for size in shape)
    with pytest.raises(ValueError, match=r"tensor|reshape|buffer"):
        messages.read_tensor_proto(tensor)


def test_what_is_too_large_is_not_read() -> None:
    large = response(a=np.zeros((MAX_BYTES, 1), np.float32))
    assert read(large) == Reading(1, [])


@given(st.binary(max_size=200), st.sampled_from(("predict", "classify", "regress", "infer")))
def test_no_bytes_keep_an_answer_from_passing(payload: bytes, verb: str) -> None:
    inference = Inference("oip" if verb == "infer" else "tfserving", verb, versioned=False)
    assert Reader(Feedback()).read_message(inference, payload).rows >= 0
