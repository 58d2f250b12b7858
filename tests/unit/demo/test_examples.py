"""The examples do what they say: models as good or as bad as told, manifests that the API knows whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import yaml

from e2e.demo.settings import uri_of, version_of
from e2e.demo.story import MANIFEST
from examples.digits import train as digits
from examples.iris import train as iris
from examples.onnx_export import accuracy
from penstock.api.modeldeployment import ModelDeployment

MANIFESTS = sorted(MANIFEST.parents[1].rglob("*.yaml"))


@pytest.fixture(scope="module")
def data() -> digits.Data:
    """The digits, halved."""
    return digits.Data.load()


@pytest.mark.parametrize("make", [digits.svm, digits.renamed_input])
def test_good_versions_are_good_and_scrambled_labels_are_not(make: Any, data: digits.Data) -> None:
    assert accuracy(make(data), data.held_out_rows, data.held_out_labels) > 0.97
    scrambled = digits.svm_on_scrambled_labels(data)
    assert accuracy(scrambled, data.held_out_rows, data.held_out_labels) < 0.25


def test_v2_takes_x_and_v6_does_not(data: digits.Data) -> None:
    names = {
        make.__name__: [i.name for i in onnxruntime.InferenceSession(make(data)).get_inputs()]
        for make in (digits.svm, digits.renamed_input)
    }
    assert names == {"svm": ["x"], "renamed_input": ["pixels"]}


def test_the_outputs_are_plain_tensors(data: digits.Data) -> None:
    outputs = {o.name: o.type for o in onnxruntime.InferenceSession(digits.svm(data)).get_outputs()}
    assert outputs == {"label": "tensor(int64)", "probabilities": "tensor(float)"}


def test_the_corrupt_file_cannot_be_loaded(data: digits.Data) -> None:
    with pytest.raises(Exception, match=r"INVALID_PROTOBUF|INVALID_GRAPH|Protobuf"):
        onnxruntime.InferenceSession(digits.corrupt(data))


def test_iris_is_good(tmp_path: Path) -> None:
    assert iris.train(tmp_path) > 0.9
    assert (tmp_path / "v1" / "model.onnx").exists()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_every_manifest_says_only_what_the_api_knows(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    known = ModelDeployment.from_wire(manifest).model_dump(mode="json", by_alias=True)
    assert unknown(manifest["spec"], known["spec"]) == []


def unknown(said: Any, known: Any, where: str = "spec") -> list[str]:
    """Paths of fields in `said` that parsing dropped."""
    match said, known:
        case Mapping(), Mapping():
            gone = [f"{where}.{key}" for key in said if key not in known]
            return gone + [p for key in said if key in known for p in unknown(said[key], known[key], f"{where}.{key}")]
        case list(), list():
            pairs = enumerate(zip(said, known, strict=True))
            return [p for i, (a, b) in pairs for p in unknown(a, b, f"{where}[{i}]")]
    return []


def test_the_smallest_manifest_has_five_lines() -> None:
    lines = (MANIFEST.parents[1] / "iris" / "modeldeployment.yaml").read_text().splitlines()
    assert len(lines) == 5


def test_the_storys_manifest_names_the_first_version() -> None:
    assert uri_of("v1") in MANIFEST.read_text()
    assert version_of(uri_of("v4")) == "v4"
    assert version_of("http://elsewhere/digits/v4/model.onnx") == ""
