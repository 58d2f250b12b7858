"""The protocol over HTTP, by the client of another server's authors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as client
from tritonclient.utils import InferenceServerException

from conformance.conftest import MAX_BODY_BYTES, Served
from conformance.tensors import SETOSA, VALUES, VIRGINICA, assert_same, texts

BOTH = [True, False]


@pytest.fixture(params=["server", "agent"])
def data(request: pytest.FixtureRequest) -> Iterator[client.InferenceServerClient]:
    """A client of the data port, and of that of an agent before it."""
    server: Served = request.getfixturevalue(request.param)
    with client.InferenceServerClient(server.http) as found:
        yield found


@pytest.fixture
def admin(server: Served) -> Iterator[client.InferenceServerClient]:
    """A client of the admin port."""
    with client.InferenceServerClient(server.admin) as found:
        yield found


def given(name: str, datatype: str, array: np.ndarray[Any, Any], binary: bool = True) -> client.InferInput:
    return client.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)


def wanted(*names: str, binary: bool = True) -> list[client.InferRequestedOutput]:
    return [client.InferRequestedOutput(name, binary_data=binary) for name in names]


def echo_inputs(binary: bool, values: dict[str, np.ndarray[Any, Any]] = VALUES) -> list[client.InferInput]:
    return [given(name, name, array, binary) for name, array in values.items()]


def refusal(error: pytest.ExceptionInfo[InferenceServerException]) -> tuple[str, str]:
    return str(error.value.status()), str(error.value.message())


def test_health_and_metadata(data: client.InferenceServerClient) -> None:
    assert data.is_server_live()
    assert data.is_server_ready()
    metadata = data.get_server_metadata()
    assert metadata["name"] == "penstock-runtime"
    assert {"binary_tensor_data", "model_configuration", "statistics"} <= set(metadata["extensions"])
    assert data.is_model_ready("iris")
    assert data.is_model_ready("iris", "1")
    assert not data.is_model_ready("iris", "7")
    assert not data.is_model_ready("nobody")
    model = data.get_model_metadata("iris")
    assert model["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
    assert data.get_model_metadata("numbered")["versions"] == ["1", "2"]


def test_configuration(data: client.InferenceServerClient) -> None:
    config = data.get_model_config("echo", "1")
    assert {entry["name"]: entry["data_type"] for entry in config["input"]} == {
        name: f"TYPE_{'STRING' if name == 'BYTES' else name}" for name in VALUES
    }


@pytest.mark.parametrize(("binary_in", "binary_out"), list(itertools.product(BOTH, BOTH)))
def test_every_datatype_both_ways(data: client.InferenceServerClient, binary_in: bool, binary_out: bool) -> None:
    outputs = wanted(*(f"out_{name}" for name in VALUES), binary=binary_out)
    result = data.infer("echo", echo_inputs(binary_in), outputs=outputs)
    for name, array in VALUES.items():
        assert_same(name, result.as_numpy(f"out_{name}"), array)


@pytest.mark.parametrize("name", list(VALUES))
def test_each_datatype_in_binary_form_among_json_ones(data: client.InferenceServerClient, name: str) -> None:
    inputs = [given(other, other, array, other == name) for other, array in VALUES.items()]
    outputs = [*wanted(f"out_{name}"), *wanted(*(f"out_{other}" for other in VALUES if other != name), binary=False)]
    result = data.infer("echo", inputs, outputs=outputs)
    for other, array in VALUES.items():
        assert_same(other, result.as_numpy(f"out_{other}"), array)


def test_half_precision(data: client.InferenceServerClient) -> None:
    x = np.array([[1.5], [32752.0], [6e-8]], np.float16)
    result = data.infer("half", [given("x", "FP16", x)], outputs=wanted("y"))
    assert_same("FP16", result.as_numpy("y"), x * np.float16(2))


@pytest.mark.parametrize("binary", BOTH)
def test_tensors_without_elements(data: client.InferenceServerClient, binary: bool) -> None:
    empty = {name: array[:0] for name, array in VALUES.items()}
    outputs = wanted(*(f"out_{name}" for name in VALUES), binary=binary)
    result = data.infer("echo", echo_inputs(binary, empty), outputs=outputs)
    for name, array in empty.items():
        assert result.get_output(f"out_{name}")["shape"] == [0, 2]
        assert_same(name, result.as_numpy(f"out_{name}"), array)


@pytest.mark.parametrize("binary", BOTH)
@pytest.mark.parametrize("answer", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
def test_compression(
    data: client.InferenceServerClient, request_coding: str | None, answer: str | None, binary: bool
) -> None:
    rows = np.repeat(SETOSA, 2000, axis=0)
    result = data.infer(
        "iris", [given("X", "FP32", rows, binary)], outputs=wanted("label", "probabilities", binary=binary),
        request_compression_algorithm=request_coding, response_compression_algorithm=answer,
    )  # fmt: skip
    assert result.get_response()["model_name"] == "iris"
    assert (result.as_numpy("label") == 0).all()
    assert result.as_numpy("probabilities").shape == (2000, 3)


def test_outputs_come_as_asked_for(data: client.InferenceServerClient) -> None:
    both = [given("X", "FP32", np.concatenate([SETOSA, VIRGINICA]))]
    every = data.infer("iris", both).get_response()["outputs"]
    assert [output["name"] for output in every] == ["label", "probabilities"]
    turned = data.infer("iris", both, outputs=wanted("probabilities", "label"))
    assert [output["name"] for output in turned.get_response()["outputs"]] == ["probabilities", "label"]
    assert turned.as_numpy("label").tolist() == [0, 2]
    one = data.infer("iris", both, outputs=wanted("label"))
    assert one.as_numpy("probabilities") is None


def test_the_id_comes_back_and_none_is_made_up(data: client.InferenceServerClient) -> None:
    x = [given("X", "FP32", SETOSA)]
    assert data.infer("iris", x, request_id="söme id").get_response()["id"] == "söme id"
    assert "id" not in data.infer("iris", x).get_response()


def test_versions(data: client.InferenceServerClient) -> None:
    x = [given("x", "FP32", np.array([[3.0]], np.float32))]
    for version, expected, answered in (("1", 3.0, "1"), ("2", 6.0, "2"), ("", 6.0, "2")):
        result = data.infer("numbered", x, model_version=version)
        assert (result.as_numpy("y")[0, 0], result.get_response()["model_version"]) == (expected, answered)


def test_parameters_that_mean_nothing_here_change_nothing(data: client.InferenceServerClient) -> None:
    result = data.infer(
        "iris", [given("X", "FP32", SETOSA)], sequence_id=7, sequence_start=True, sequence_end=True, priority=1,
        timeout=1_000_000, parameters={"mine": "yes", "count": 3, "share": 0.5, "on": True},
    )  # fmt: skip
    assert result.as_numpy("label").tolist() == [0]


def test_text_outputs(data: client.InferenceServerClient) -> None:
    for binary in BOTH:
        result = data.infer("text", [given("X", "FP32", VIRGINICA)], outputs=wanted("label", binary=binary))
        assert texts(result.as_numpy("label")) == ["virginica"]


def test_many_requests_at_once(data: client.InferenceServerClient, server: Served) -> None:
    with client.InferenceServerClient(server.http, concurrency=8) as many:
        rows = [SETOSA if index % 2 else VIRGINICA for index in range(100)]
        waiting = [many.async_infer("iris", [given("X", "FP32", row)], request_id=str(i)) for i, row in enumerate(rows)]
        for index, each in enumerate(waiting):
            result = each.get_result()
            assert result.get_response()["id"] == str(index)
            assert result.as_numpy("label").tolist() == [0 if index % 2 else 2]


def test_bodies_that_are_made_and_read_by_hand(server: Served) -> None:
    import http.client as plain

    body, length = client.InferenceServerClient.generate_request_body([given("X", "FP32", SETOSA)])
    connection = plain.HTTPConnection(server.http, timeout=30)
    connection.request("POST", "/v2/models/iris/infer", body, {"Inference-Header-Content-Length": str(length)})
    reply = connection.getresponse()
    head = int(reply.headers["Inference-Header-Content-Length"])
    result = client.InferenceServerClient.parse_response_body(reply.read(), header_length=head)
    connection.close()
    assert result.as_numpy("label").tolist() == [0]


def test_statistics(data: client.InferenceServerClient) -> None:
    before = data.get_inference_statistics("scaled")["model_stats"][0]
    data.infer("scaled", [given("x", "FP32", np.ones((3, 1), np.float32))])
    with pytest.raises(InferenceServerException):
        data.infer("scaled", [given("x", "FP32", np.ones((3, 2), np.float32))])
    after = data.get_inference_statistics("scaled", "1")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    counts = [[stats["inference_stats"][key]["count"] for key in ("success", "fail")] for stats in (before, after)]
    assert counts[1] == [counts[0][0] + 1, counts[0][1] + 1]
    assert {entry["name"] for entry in data.get_inference_statistics()["model_stats"]} >= {"echo", "iris", "scaled"}


def test_the_repository_on_the_admin_port_only(
    data: client.InferenceServerClient, admin: client.InferenceServerClient
) -> None:
    states = {(entry["name"], entry["version"]): entry["state"] for entry in admin.get_model_repository_index()}
    assert states["numbered", "1"] == states["numbered", "2"] == states["iris", "1"] == "READY"
    admin.load_model("scaled")
    assert data.is_model_ready("scaled")
    admin.unload_model("scaled")
    assert not data.is_model_ready("scaled")
    with pytest.raises(InferenceServerException) as error:
        data.infer("scaled", [given("x", "FP32", np.ones((1, 1), np.float32))])
    assert refusal(error) == ("503", "the model is not loaded")
    admin.load_model("scaled")
    assert data.infer("scaled", [given("x", "FP32", np.ones((1, 1), np.float32))]).as_numpy("y").tolist() == [[2.0]]
    # An agent does not know what the server behind it takes, but commands it refuses itself.
    for call, statuses in (
        (data.get_model_repository_index, ["404"]),
        (lambda: data.load_model("iris"), ["404", "403"]),
        (lambda: data.unload_model("iris"), ["404", "403"]),
    ):
        with pytest.raises(InferenceServerException) as error:
            call()
        assert refusal(error)[0] in statuses
    assert data.is_model_ready("iris")


def test_loads_that_cannot_be(admin: client.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as error:
        admin.load_model("nobody")
    assert refusal(error)[0] == "404"
    for more in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"x"}}):
        with pytest.raises(InferenceServerException, match="parameters are not supported") as error:
            admin.load_model("iris", **more)
        assert refusal(error)[0] == "400"


BAD: list[tuple[str, str, client.InferInput, list[client.InferRequestedOutput] | None, str, str]] = [
    ("nobody", "", given("X", "FP32", SETOSA), None, "404", "unknown model 'nobody'"),
    ("iris", "9", given("X", "FP32", SETOSA), None, "404", "no version '9'"),
    ("iris", "", given("Y", "FP32", SETOSA), None, "400", "unknown input 'Y'"),
    (
        "iris",
        "",
        given("X", "FP64", SETOSA.astype(np.float64)),
        None,
        "400",
        "datatype is 'FP64', the model takes FP32",
    ),
    ("iris", "", given("X", "FP32", SETOSA[:, :3]), None, "400", "shape [1, 3] does not fit"),
    ("iris", "", given("X", "FP32", SETOSA), wanted("odds"), "400", "unknown output 'odds'"),
    ("iris", "", given("X", "FP32", SETOSA), wanted("label", "label"), "400", "asked for twice"),
    (
        "half",
        "",
        given("x", "FP16", np.ones((1, 1), np.float16)),
        wanted("y", binary=False),
        "400",
        "JSON cannot carry",
    ),
    ("picky", "", given("x", "FP32", np.ones(3, np.float32)), None, "500", "the model failed"),
]


@pytest.mark.parametrize(("model", "version", "x", "outputs", "status", "words"), BAD)
def test_errors(
    data: client.InferenceServerClient, model: str, version: str, x: client.InferInput,
    outputs: list[client.InferRequestedOutput] | None, status: str, words: str,
) -> None:  # fmt: skip
    with pytest.raises(InferenceServerException) as error:
        data.infer(model, [x], model_version=version, outputs=outputs)
    assert refusal(error)[0] == status
    assert words in refusal(error)[1]


def test_what_is_too_large_is_refused_before_and_after_decompression(data: client.InferenceServerClient) -> None:
    rows = np.zeros((MAX_BODY_BYTES // 16, 4), np.float32)
    for coding in (None, "gzip"):
        with pytest.raises(InferenceServerException, match=f"larger than {MAX_BODY_BYTES} bytes") as error:
            data.infer("iris", [given("X", "FP32", rows)], request_compression_algorithm=coding)
        assert refusal(error)[0] == "413"


def test_extensions_that_are_not_there_say_so(data: client.InferenceServerClient) -> None:
    for call in (data.get_trace_settings, data.get_log_settings, data.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException, match="there is nothing at /v2/") as error:
            call()
        assert refusal(error)[0] == "404"
    shared = client.InferInput("X", [1, 4], "FP32")
    shared.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException) as error:
        data.infer("iris", [shared])
    assert refusal(error)[0] == "400"


async def test_the_asynchronous_client(server: Served) -> None:
    from tritonclient.http import aio

    async with aio.InferenceServerClient(server.http) as found:
        assert await found.is_server_ready()
        result = await found.infer("iris", [given("X", "FP32", VIRGINICA)], outputs=wanted("label"), request_id="7")
        assert (result.as_numpy("label").tolist(), result.get_response()["id"]) == ([2], "7")
