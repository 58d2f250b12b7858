"""The protocol over gRPC, by the client of another server's authors. Skipped where the server has no gRPC port."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from conformance.conftest import MAX_BODY_BYTES, Served
from conformance.tensors import SETOSA, VALUES, VIRGINICA, assert_same, texts


@pytest.fixture(params=["server", "agent"])
def data(request: pytest.FixtureRequest) -> Iterator[client.InferenceServerClient]:
    """A client of the gRPC port, and of that of an agent before it."""
    server: Served = request.getfixturevalue(request.param)
    if server.grpc is None:
        pytest.skip("this server does not listen for gRPC: its line 'listening' has no grpc_port")
    with client.InferenceServerClient(server.grpc) as found:
        yield found


def given(name: str, datatype: str, array: np.ndarray[Any, Any]) -> client.InferInput:
    found = client.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def wanted(*names: str) -> list[client.InferRequestedOutput]:
    return [client.InferRequestedOutput(name) for name in names]


def code(error: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


def test_health_and_metadata(data: client.InferenceServerClient) -> None:
    assert data.is_server_live()
    assert data.is_server_ready()
    assert data.get_server_metadata().name == "penstock-runtime"
    assert data.is_model_ready("iris")
    assert data.is_model_ready("iris", "1")
    model = data.get_model_metadata("iris")
    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in model.inputs] == [("X", "FP32", [-1, 4])]
    assert list(data.get_model_metadata("numbered").versions) == ["1", "2"]


def test_every_datatype(data: client.InferenceServerClient) -> None:
    inputs = [given(name, name, array) for name, array in VALUES.items()]
    result = data.infer("echo", inputs, outputs=wanted(*(f"out_{name}" for name in VALUES)))
    for name, array in VALUES.items():
        assert_same(name, result.as_numpy(f"out_{name}"), array)


def test_half_precision(data: client.InferenceServerClient) -> None:
    x = np.array([[1.5], [32752.0], [6e-8]], np.float16)
    assert_same("FP16", data.infer("half", [given("x", "FP16", x)]).as_numpy("y"), x * np.float16(2))


def test_tensors_without_elements(data: client.InferenceServerClient) -> None:
    result = data.infer("iris", [given("X", "FP32", SETOSA[:0])], outputs=wanted("probabilities"))
    assert_same("FP32", result.as_numpy("probabilities"), np.empty((0, 3), np.float32))


@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_compression(data: client.InferenceServerClient, algorithm: str | None) -> None:
    rows = np.repeat(SETOSA, 2000, axis=0)
    result = data.infer("iris", [given("X", "FP32", rows)], compression_algorithm=algorithm)
    assert result.as_numpy("probabilities").shape == (2000, 3)
    assert (result.as_numpy("label") == 0).all()


def test_outputs_come_as_asked_for(data: client.InferenceServerClient) -> None:
    both = [given("X", "FP32", np.concatenate([SETOSA, VIRGINICA]))]
    every = data.infer("iris", both).get_response().outputs
    assert [output.name for output in every] == ["label", "probabilities"]
    turned = data.infer("iris", both, outputs=wanted("probabilities", "label"))
    assert [output.name for output in turned.get_response().outputs] == ["probabilities", "label"]
    assert turned.as_numpy("label").tolist() == [0, 2]
    assert data.infer("iris", both, outputs=wanted("label")).as_numpy("probabilities") is None


def test_the_id_comes_back_and_none_is_made_up(data: client.InferenceServerClient) -> None:
    x = [given("X", "FP32", SETOSA)]
    assert data.infer("iris", x, request_id="söme id").get_response().id == "söme id"
    assert data.infer("iris", x).get_response().id == ""


def test_versions(data: client.InferenceServerClient) -> None:
    x = [given("x", "FP32", np.array([[3.0]], np.float32))]
    for version, expected, answered in (("1", 3.0, "1"), ("2", 6.0, "2"), ("", 6.0, "2")):
        result = data.infer("numbered", x, model_version=version)
        assert (result.as_numpy("y")[0, 0], result.get_response().model_version) == (expected, answered)


def test_parameters_that_mean_nothing_here_change_nothing(data: client.InferenceServerClient) -> None:
    result = data.infer(
        "iris", [given("X", "FP32", SETOSA)], sequence_id=7, sequence_start=True, sequence_end=True, priority=1,
        timeout=1_000_000, parameters={"mine": "yes", "count": 3, "on": True},
    )  # fmt: skip
    assert result.as_numpy("label").tolist() == [0]


def test_text_outputs(data: client.InferenceServerClient) -> None:
    assert texts(data.infer("text", [given("X", "FP32", VIRGINICA)]).as_numpy("label")) == ["virginica"]


BAD: list[tuple[str, str, client.InferInput, list[client.InferRequestedOutput] | None, str, str]] = [
    ("nobody", "", given("X", "FP32", SETOSA), None, "NOT_FOUND", "unknown model 'nobody'"),
    ("iris", "9", given("X", "FP32", SETOSA), None, "NOT_FOUND", "no version '9'"),
    ("iris", "", given("Y", "FP32", SETOSA), None, "INVALID_ARGUMENT", "unknown input 'Y'"),
    ("iris", "", given("X", "FP64", SETOSA.astype(np.float64)), None, "INVALID_ARGUMENT", "the model takes FP32"),
    ("iris", "", given("X", "FP32", SETOSA[:, :3]), None, "INVALID_ARGUMENT", "shape [1, 3] does not fit"),
    ("iris", "", given("X", "FP32", SETOSA), wanted("odds"), "INVALID_ARGUMENT", "unknown output 'odds'"),
    ("picky", "", given("x", "FP32", np.ones(3, np.float32)), None, "INTERNAL", "the model failed"),
]


@pytest.mark.parametrize(("model", "version", "x", "outputs", "status", "words"), BAD)
def test_errors(
    data: client.InferenceServerClient, model: str, version: str, x: client.InferInput,
    outputs: list[client.InferRequestedOutput] | None, status: str, words: str,
) -> None:  # fmt: skip
    with pytest.raises(InferenceServerException) as error:
        data.infer(model, [x], model_version=version, outputs=outputs)
    assert code(error) == status
    assert words in str(error.value.message())


def test_what_is_too_large_is_refused(data: client.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as error:
        data.infer("iris", [given("X", "FP32", np.zeros((MAX_BODY_BYTES // 16 + 1000, 4), np.float32))])
    assert code(error) in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
    assert data.is_server_ready()


def test_configuration(data: client.InferenceServerClient) -> None:
    config = data.get_model_config("echo", "1").config
    assert [entry.name for entry in config.input] == list(VALUES)


def test_statistics(data: client.InferenceServerClient) -> None:
    before = data.get_inference_statistics("scaled").model_stats[0]
    data.infer("scaled", [given("x", "FP32", np.ones((3, 1), np.float32))])
    after = data.get_inference_statistics("scaled", "1").model_stats[0]
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1


def test_the_repository_is_not_for_the_data_port(data: client.InferenceServerClient) -> None:
    for call in (data.load_model, data.unload_model):
        with pytest.raises(InferenceServerException) as error:
            call("iris")
        assert code(error) in ("UNIMPLEMENTED", "PERMISSION_DENIED")
    assert data.is_model_ready("iris")


def test_many_requests_at_once(data: client.InferenceServerClient) -> None:
    results: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for index in range(100):
        row = SETOSA if index % 2 else VIRGINICA
        data.async_infer("iris", [given("X", "FP32", row)],
                         callback=lambda result, error, index=index: results.put((index, result, error)))  # fmt: skip
    for _ in range(100):
        index, result, error = results.get(timeout=60)
        assert error is None
        assert result.as_numpy("label").tolist() == [0 if index % 2 else 2]
