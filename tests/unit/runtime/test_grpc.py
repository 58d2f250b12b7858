"""gRPC as clients meet it: every datatype both ways, versions, outputs, ids, metadata, and every refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc import Compression, StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from penstock_runtime import __version__
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.protocol.grpc.contents import FIELDS
from tests.unit.runtime.binary import from_bytes
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.grpc_client import (
    INFER,
    Client,
    Outcome,
    iris_raw,
    iris_typed,
    raw_request,
    typed,
    typed_request,
)
from tests.unit.runtime.process import SETOSA, VIRGINICA, Server

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, False, True],
    "BYTES": ["", "å", "\x00", "text"],
    "FP32": [1.5, -0.25, 3e38, 1e-30],
    "FP64": [1.5, -0.1, 1e300, 5e-324],
    "INT8": [-128, 127, 0, 1],
    "INT16": [-(2**15), 2**15 - 1, 0, 1],
    "INT32": [-(2**31), 2**31 - 1, 0, 1],
    "INT64": [-(2**63), 2**63 - 1, 0, 1],
    "UINT8": [0, 255, 1, 2],
    "UINT16": [0, 2**16 - 1, 1, 2],
    "UINT32": [0, 2**32 - 1, 1, 2],
    "UINT64": [0, 2**64 - 1, 1, 2],
}


@pytest.fixture
def client(iris: Server) -> Iterator[Client]:
    with Client(iris.grpc_port) as opened:
        yield opened


@pytest.fixture
def echo_client(echo: Server) -> Iterator[Client]:
    with Client(echo.grpc_port) as opened:
        yield opened


def echo_typed(**changed: Any) -> pb.ModelInferRequest:
    """Return a request for the echo model with values of every datatype, `changed` by name."""
    flat = {**VALUES, **changed}
    return typed_request(*(typed(name, name, [2, 2], values) for name, values in flat.items()))


def echo_raw() -> pb.ModelInferRequest:
    return raw_request({name: (name, [2, 2], values) for name, values in VALUES.items()})


def rounded(name: str, values: list[Any]) -> list[Any]:
    return [pytest.approx(value, rel=1e-6) for value in values] if name == "FP32" else values


def test_every_datatype_typed_comes_back_typed(echo_client: Client) -> None:
    answer = echo_client.infer(echo_typed()).answer
    assert not answer.raw_output_contents
    assert [output.name for output in answer.outputs] == [f"out_{name}" for name in VALUES]
    for output in answer.outputs:
        values = list(getattr(output.contents, FIELDS[output.datatype]))
        got = [item.decode() for item in values] if output.datatype == "BYTES" else values
        assert (list(output.shape), got) == ([2, 2], rounded(output.datatype, VALUES[output.datatype]))


def test_every_datatype_raw_comes_back_raw(echo_client: Client) -> None:
    answer = echo_client.infer(echo_raw()).answer
    assert len(answer.raw_output_contents) == len(answer.outputs) == len(VALUES)
    for output, blob in zip(answer.outputs, answer.raw_output_contents, strict=True):
        assert not output.HasField("contents")
        got = from_bytes(output.datatype, blob)
        assert (list(output.shape), got) == ([2, 2], rounded(output.datatype, VALUES[output.datatype]))


def test_no_rows_are_no_elements(echo_client: Client) -> None:
    nothing = typed_request(*(typed(name, name, [0, 2], []) for name in VALUES))
    answer = echo_client.infer(nothing).answer
    assert all(list(output.shape) == [0, 2] for output in answer.outputs)
    raw = raw_request({name: (name, [0, 2], []) for name in VALUES})
    assert list(echo_client.infer(raw).answer.raw_output_contents) == [b""] * len(VALUES)


def test_fp16_travels_raw_and_only_raw(start_server: Start) -> None:
    with Client(start_server("half").ready().grpc_port) as client:
        answer = client.infer(raw_request({"x": ("FP16", [2, 1], [0.5, -3.0])})).answer
        assert from_bytes("FP16", answer.raw_output_contents[0]) == [1.0, -6.0]
        refused = client.infer(
            typed_request(pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP16", shape=[1, 1]))
        )
        assert (refused.code, refused.details) == (
            StatusCode.INVALID_ARGUMENT,
            "input 'x' is FP16, which typed contents cannot carry; send it as raw contents",
        )


def test_an_answer_says_what_was_asked(client: Client) -> None:
    outcome = client.infer(iris_typed(SETOSA, VIRGINICA, id="abc", outputs=["label"], model_version="1"))
    answer = outcome.answer
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "abc")
    assert [(output.name, list(output.contents.int64_contents)) for output in answer.outputs] == [("label", [0, 2])]
    assert client.infer(iris_raw(SETOSA)).answer.id == ""


def test_outputs_come_in_the_order_asked_for(client: Client) -> None:
    answer = client.infer(iris_raw(SETOSA, outputs=["probabilities", "label"])).answer
    assert [output.name for output in answer.outputs] == ["probabilities", "label"]
    assert from_bytes("INT64", answer.raw_output_contents[1]) == [0]


def test_revision_and_prediction_id_are_initial_metadata(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_REVISION="r7").ready()
    with Client(server.grpc_port) as client:
        outcome = client.infer(iris_raw(SETOSA))
        assert outcome.metadata["penstock-revision"] == "r7"
        feedback = server.feedback([{"id": outcome.metadata["penstock-prediction-id"], "label": 0}])
        assert feedback.json["accepted"] == 1
        assert client.infer(iris_raw(SETOSA[:3])).metadata == {"penstock-revision": "r7"}


def test_extensions_that_are_not_there_are_refused_where_they_change_the_answer(client: Client) -> None:
    request = iris_typed(SETOSA, outputs=["label"])
    request.outputs[0].parameters["classification"].int64_param = 2
    outcome = client.infer(request)
    assert outcome.code == StatusCode.INVALID_ARGUMENT
    assert "output 'label' has the parameter 'classification'" in outcome.details


def test_parameters_are_ignored_as_unknown_ones_must_be(client: Client) -> None:
    request = iris_raw(SETOSA)
    request.parameters["priority"].uint64_param = 3
    request.inputs[0].parameters["shared_memory_offset"].int64_param = 1
    assert client.infer(request).code == StatusCode.OK


BAD, NOT_FOUND = StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND


def with_raw(request: pb.ModelInferRequest, *blobs: bytes) -> pb.ModelInferRequest:
    request.raw_input_contents.extend(blobs)
    return request


def misplaced() -> pb.ModelInferRequest:
    request = iris_typed(SETOSA)
    request.inputs[0].contents.fp64_contents.extend([1.0] * 4)
    return request


X = "FP32", [1, 4], SETOSA
REFUSALS: list[tuple[str, pb.ModelInferRequest, StatusCode, str]] = [
    ("model", iris_typed(SETOSA, model="other"), NOT_FOUND, "unknown model 'other'; this server has 'm'"),
    ("version", iris_typed(SETOSA, model_version="9"), NOT_FOUND, "model 'm' has no version '9'; it has '1'"),
    ("input", typed_request(typed("Z", *X)), BAD, "unknown input 'Z'; the model takes 'X'"),
    ("twice", typed_request(typed("X", *X), typed("X", *X)), BAD, "input 'X' is given twice"),
    ("none", typed_request(), BAD, "missing input 'X'; the model takes 'X'"),
    (
        "datatype",
        typed_request(typed("X", "FP64", [1, 4], SETOSA)),
        BAD,
        "input 'X': datatype is 'FP64', the model takes FP32",
    ),
    (
        "shape",
        typed_request(typed("X", "FP32", [4], SETOSA)),
        BAD,
        "input 'X': shape [4] does not fit the model's [-1, 4] (-1: any size)",
    ),
    (
        "negative",
        typed_request(typed("X", "FP32", [-1, 4], SETOSA)),
        BAD,
        "input 'X': 'shape' must be a list of integers >= 0",
    ),
    (
        "huge",
        typed_request(typed("X", "FP32", [2**40, 4], SETOSA)),
        BAD,
        "input 'X': shape [1099511627776, 4] is beyond 67108864 elements",
    ),
    (
        "few",
        typed_request(typed("X", "FP32", [2, 4], SETOSA)),
        BAD,
        "input 'X': 4 elements in 'fp32_contents', shape [2, 4] needs 8",
    ),
    ("field", misplaced(), BAD, "input 'X': elements of FP32 belong in 'fp32_contents', not 'fp64_contents'"),
    ("output", iris_typed(SETOSA, outputs=["Y"]), BAD, "unknown output 'Y'; the model gives 'label', 'probabilities'"),
    ("output twice", iris_typed(SETOSA, outputs=["label", "label"]), BAD, "output 'label' is asked for twice"),
    ("both", with_raw(iris_typed(SETOSA), b"x"), BAD, "input 'X' has both 'contents' and raw contents; give one"),
    (
        "surplus",
        with_raw(iris_raw(SETOSA), b"x"),
        BAD,
        "2 raw contents for 1 inputs; there must be one for each, or none at all",
    ),
    (
        "raw size",
        raw_request({"X": ("FP32", [2, 4], SETOSA)}),
        BAD,
        "input 'X': shape [2, 4] of FP32 takes 32 bytes, there are 16 bytes",
    ),
]


@pytest.mark.parametrize(("request_", "code", "details"), [case[1:] for case in REFUSALS], ids=[c[0] for c in REFUSALS])
def test_what_does_not_fit_is_refused_in_words(
    client: Client, request_: pb.ModelInferRequest, code: StatusCode, details: str
) -> None:
    assert_refused(client.infer(request_), code, details)


def assert_refused(outcome: Outcome, code: StatusCode, details: str) -> None:
    assert (outcome.code, outcome.details) == (code, details)


@pytest.mark.parametrize(
    ("name", "values"),
    [("INT8", [300, 0, 0, 0]), ("INT8", [0, 0, 0, -129]), ("INT16", [2**15, 0, 0, 0]), ("UINT8", [256, 0, 0, 0]),
     ("UINT16", [0, 2**16, 0, 0])],
)  # fmt: skip
def test_integers_beyond_their_datatype_are_refused(echo_client: Client, name: str, values: list[int]) -> None:
    refused = echo_client.infer(echo_typed(**{name: values}))
    assert_refused(refused, BAD, f"input '{name}': a value is out of the range of {name}")


def test_bytes_must_be_text(echo_client: Client) -> None:
    details = "input 'BYTES': element 1 of BYTES is not UTF-8, as text for an ONNX model must be"
    assert_refused(echo_client.infer(echo_typed(BYTES=["a", b"\xff", "", ""])), BAD, details)


def test_raw_bytes_that_do_not_hold_the_elements_are_refused(echo_client: Client) -> None:
    request = echo_raw()
    at = list(VALUES).index("BYTES")
    request.raw_input_contents[at] = request.raw_input_contents[at][:-1]
    refused = echo_client.infer(request)
    assert_refused(refused, BAD, "input 'BYTES': element 3 of BYTES ends 1 bytes behind the tensor")
    request = echo_raw()
    request.raw_input_contents[list(VALUES).index("BOOL")] = b"\x01\x00\x02\x00"
    assert_refused(echo_client.infer(request), BAD, "input 'BOOL': a byte of BOOL is neither 0 nor 1")


def test_what_the_model_refuses_is_said(start_server: Start) -> None:
    with Client(start_server("picky").ready().grpc_port) as client:
        assert client.infer(typed_request(typed("x", "FP32", [4], [1, 2, 3, 4]))).code == StatusCode.OK
        failed = client.infer(typed_request(typed("x", "FP32", [3], [1, 2, 3])))
        assert failed.code == StatusCode.INTERNAL
        assert failed.details.startswith("the model failed: ")


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_the_clients_fault(client: Client, payload: bytes) -> None:
    refused = client.call(INFER, payload, pb.ModelInferResponse)
    assert_refused(refused, BAD, "the message is no valid ModelInferRequest")
    refused = client.call("/inference.GRPCInferenceService/ModelReady", payload, pb.ModelReadyResponse)
    assert_refused(refused, BAD, "the message is no valid ModelReadyRequest")


def test_an_unknown_method_is_unimplemented(client: Client) -> None:
    for path in ("/inference.GRPCInferenceService/Guess", "/other.Service/ModelInfer"):
        assert_refused(
            client.call(path, b"", pb.ModelInferResponse), StatusCode.UNIMPLEMENTED, "there is no such method"
        )


def test_a_message_beyond_the_limit_is_refused_and_the_largest_goes(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":"8Ki"}').ready()
    with Client(server.grpc_port) as client:
        assert client.infer(iris_raw(*[SETOSA] * 500)).code == StatusCode.OK
        assert client.infer(iris_raw(*[SETOSA] * 520)).code == StatusCode.RESOURCE_EXHAUSTED


def test_messages_may_be_compressed_and_the_limit_holds_for_what_they_become(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":"1Mi"}').ready()
    with Client(server.grpc_port) as client:
        infer = client.channel.unary_unary(INFER, None, pb.ModelInferResponse.FromString)
        answer = infer(iris_raw(*[SETOSA] * 1000).SerializeToString(), compression=Compression.Gzip)
        assert from_bytes("INT64", answer.raw_output_contents[0]) == [0] * 1000
        failed = infer.future(bytes(2**26), compression=Compression.Gzip).exception()
        assert (failed.code(), failed.details()) == (
            StatusCode.RESOURCE_EXHAUSTED, "Decompressed message larger than max",
        )  # fmt: skip


def test_answers_may_be_larger_than_requests(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_SERVING='{"maxBodyBytes":"64Mi"}').ready()
    with Client(server.grpc_port) as client:
        answer = client.infer(iris_raw(*[SETOSA] * 300_000)).answer
    assert sum(map(len, answer.raw_output_contents)) == 300_000 * 20


def test_server_and_models_are_described(client: Client) -> None:
    assert client.ask("ServerLive").answer.live
    assert client.ask("ServerReady").answer.ready
    assert client.ask("ModelReady", pb.ModelReadyRequest(name="m", version="1")).answer.ready
    server = client.ask("ServerMetadata").answer
    assert (server.name, server.version) == ("penstock-runtime", __version__)
    assert list(server.extensions) == ["model_configuration", "statistics"]
    model = client.ask("ModelMetadata", pb.ModelMetadataRequest(name="m")).answer
    assert (model.name, list(model.versions), model.platform) == ("m", ["1"], "onnx_onnxv1")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*model.inputs, *model.outputs)] == [
        ("X", "FP32", [-1, 4]), ("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 3]),
    ]  # fmt: skip


def test_the_configuration_is_that_of_http(client: Client, iris: Server) -> None:
    config = client.ask("ModelConfig", pb.ModelConfigRequest(name="m")).answer.config
    shown = iris.get("/v2/models/m/config").json
    assert (config.name, config.platform, config.backend) == (shown["name"], shown["platform"], shown["backend"])
    assert [(each.name, list(each.dims)) for each in config.input] == [("X", [-1, 4])]
    assert config.input[0].data_type == pb.TYPE_FP32
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        key: value["string_value"] for key, value in shown["parameters"].items()
    }


def test_the_repository_can_be_looked_at_and_not_changed(client: Client) -> None:
    entries = client.ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).answer.models
    assert [(entry.name, entry.version, entry.state) for entry in entries] == [("m", "1", "READY")]
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        assert_refused(client.ask(name), StatusCode.UNIMPLEMENTED,
                       "models are loaded and unloaded on the admin port, over HTTP")  # fmt: skip


@pytest.mark.parametrize("name", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_unknown_models_and_versions_are_not_found(client: Client, name: str) -> None:
    kind = getattr(pb, f"{name}Request")
    assert client.ask(name, kind(name="other")).details == "unknown model 'other'; this server has 'm'"
    assert_refused(client.ask(name, kind(name="m", version="2")), NOT_FOUND, "model 'm' has no version '2'; it has '1'")


def test_health_is_checked(client: Client) -> None:
    for service in ("", "m"):
        assert client.check(service).answer.status == health_pb2.HealthCheckResponse.SERVING
    assert_refused(client.check("other"), NOT_FOUND, "unknown service 'other'")
    assert next(client.watch("other")).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_tells_services_and_messages(client: Client, version: str) -> None:
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services="*"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nothing.there"),
    ]
    answers = list(client.reflect(iter(each.SerializeToString() for each in questions), version))
    assert [service.name for service in answers[0].list_services_response.service] == [
        "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "inference.GRPCInferenceService",
    ]  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto.FromString(answers[1].file_descriptor_response.file_descriptor_proto[0])
    assert "ModelInfer" in [method.name for method in file.service[0].method]
    assert answers[2].error_response.error_code == StatusCode.NOT_FOUND.value[0]
