"""What is read in answers of TensorFlow Serving, and which output of several decides."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_runtime.protocol.metadata import read_metadata
from penstock_runtime.server.agent import tfserving
from penstock_runtime.server.agent.paths import Inference, find_inference
from penstock_runtime.server.agent.reading import Reader, Reading
from penstock_runtime.server.settings import Feedback, read_feedback

# The machine may be busy.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PREDICT = Inference("tfserving", "predict", versioned=False)
INFER = Inference("oip", "infer", versioned=False)


async def read(document: object, inference: Inference = PREDICT, feedback: Feedback | None = None) -> Reading:
    reading = await Reader(feedback or Feedback()).read(inference, json.dumps(document).encode(), {})
    return Reading(reading.rows, list(reading.predictions))


ESTIMATOR = {
    "all_class_ids": [0, 1, 2], "all_classes": ["a", "b", "c"], "class_ids": [2], "classes": ["c"],
    "logits": [0.1, 0.2, 2.0], "probabilities": [0.1, 0.2, 0.7],
}  # fmt: skip


@pytest.mark.parametrize(
    ("document", "spec", "rows", "predictions"),
    [
        ({"predictions": [[0.1, 0.9], [0.8, 0.2]]}, {}, 2, [1, 0]),
        ({"predictions": [0.25, 0.75]}, {}, 2, [0.25, 0.75]),
        ({"predictions": [[0.25], [0.75]]}, {"threshold": 0.5}, 2, [0, 1]),
        ({"predictions": [3, 1]}, {}, 2, [3, 1]),
        ({"predictions": ["cat", "dog"]}, {}, 2, ["cat", "dog"]),
        ({"predictions": [ESTIMATOR, ESTIMATOR]}, {}, 2, [2, 2]),
        ({"predictions": [ESTIMATOR]}, {"output": "classes"}, 1, ["c"]),
        ({"predictions": [ESTIMATOR]}, {"output": "probabilities"}, 1, [2]),
        ({"predictions": [ESTIMATOR]}, {"output": "missing"}, 1, []),
        ({"predictions": [{"x": 1}, {"y": 1}]}, {}, 1, []),
        ({"predictions": [{"b64": "aGVsbG8="}]}, {}, 1, []),
        ({"predictions": [[0.1, 0.9], [0.8]]}, {}, 1, []),
        ({"predictions": [None]}, {}, 1, []),
        ({"predictions": []}, {}, 0, []),
        ({"outputs": [[0.1, 0.9], [0.8, 0.2]]}, {}, 2, [1, 0]),
        ({"outputs": {"a": [[0.1, 0.9]], "label": ["x"]}}, {}, 1, ["x"]),
        ({"outputs": 0.5}, {}, 1, [0.5]),
        ({"outputs": {}}, {}, 1, []),
        ({"results": [1.0]}, {}, 1, []),
    ],
)
async def test_predictions(document: object, spec: dict[str, Any], rows: int, predictions: list[object]) -> None:
    assert await read(document, feedback=read_feedback(spec)) == (rows, predictions)


@pytest.mark.parametrize(
    ("results", "predictions"),
    [
        ([[["a", 0.2], ["b", 0.8]], [["a", 0.9], ["b", 0.1]]], ["b", "a"]),
        # A model without labels gives empty ones: then the place is the class.
        ([[["", 0.2], ["", 0.8]], [["", 0.9], ["", 0.1]]], [1, 0]),
        ([[["a", "high"]]], []),
        ([[]], []),
        ([5], []),
    ],
)
async def test_classes(results: object, predictions: list[object]) -> None:
    reading = await read({"results": results}, Inference("tfserving", "classify", versioned=False))
    assert reading.predictions == predictions


KEYS = st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size"])
VALUES = st.sampled_from([
    "label", "INT64", "FP32", "BYTES", "BF16", [], [1], [2], [-1], [[1]], ["a"], [None], [2**70], 5, None, True, {},
    {"binary_data_size": 8}, {"binary_data_size": "x"},
])  # fmt: skip


@UNHURRIED
@given(st.lists(st.dictionaries(KEYS, VALUES), max_size=3), st.booleans())
async def test_no_output_however_malformed_breaks_the_reader(entries: list[Any], as_metadata: bool) -> None:
    complete = [{"name": "label", "datatype": "INT64", "shape": [1], "data": [7], **entry} for entry in entries]
    reader = Reader(Feedback())
    document = json.dumps({"inputs": [], "outputs": complete}).encode()
    if as_metadata:
        with suppress(ValueError):
            reader.schema = read_metadata(document)
    reading = await reader.read(INFER, document, {})
    assert reading.rows >= 0
    assert len(reading.predictions) in (0, reading.rows)


STATUS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([
        "model_version_status", "version", "state", "metadata", "signature_def", "serving_default", "model_spec",
        "inputs", "outputs", "dtype", "tensor_shape", "dim", "size", "name", "datatype",
    ]), inner),
)  # fmt: skip


@UNHURRIED
@given(STATUS)
def test_what_an_upstream_says_of_itself_is_read_or_refused(document: object) -> None:
    body = json.dumps(document).encode()
    for of in (tfserving.why_not_available, tfserving.read_metadata, read_metadata):
        with suppress(ValueError):
            of(body)


@UNHURRIED
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["predictions", "outputs", "results", "name", "shape", "datatype", "data"]) | st.text(), inner),
))  # fmt: skip
async def test_nothing_that_is_json_breaks_the_reader(document: object) -> None:
    for verb in ("predict", "classify", "regress"):
        assert (await read(document, Inference("tfserving", verb, versioned=False))).rows >= 0
    assert (await read(document, INFER)).rows >= 0


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v2/models/m/infer", ("oip", "infer", False)),
        ("/v2/models/m/versions/2/infer", ("oip", "infer", True)),
        ("/v1/models/m:predict", ("tfserving", "predict", False)),
        ("/v1/models/m/versions/2:classify", ("tfserving", "classify", True)),
        ("/v1/models/m/labels/new:regress", ("tfserving", "regress", True)),
        ("/v1/models/m:explain", None),
        ("/v1/models/other:predict", None),
        ("/v1/models/m/metadata", None),
        ("/v2/models/m/infer/", None),
        ("/v2/models/m", None),
    ],
)
def test_paths_of_inference(path: str, found: tuple[str, str, bool] | None) -> None:
    assert find_inference(path, "m", None) == found
    if found is not None:
        other = "tfserving" if found[0] == "oip" else "oip"
        assert find_inference(path, "m", other) is None  # type: ignore[arg-type]


def test_a_name_with_a_colon_is_a_name() -> None:
    assert find_inference("/v1/models/a:b:predict", "a:b", None) == PREDICT


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model_version_status": [1]}', b'{"model_version_status": 5}'])
def test_what_is_no_status_of_a_model(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        tfserving.why_not_available(body)


def test_one_version_that_is_available_is_enough() -> None:
    states = [{"version": "1", "state": "END"}, {"version": "2", "state": "AVAILABLE"}]
    assert tfserving.why_not_available(json.dumps({"model_version_status": states}).encode()) is None
    assert tfserving.why_not_available(b'{"model_version_status": []}') == (
        "no version of the model is available: there is none"
    )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"metadata": {"signature_def": {"signature_def": {"other": {}}}}}']
)
def test_what_is_no_metadata(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        tfserving.read_metadata(body)
