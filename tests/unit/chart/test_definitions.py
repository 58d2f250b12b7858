"""CRDs and runtimes in the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.api.runtime import ClusterModelRuntime
from penstock.core import render as pods
from tests.unit.chart.rendering import ROOT, Render, script

NAMES = {"clustermodelruntimes.penstock.dev", "modeldeployments.penstock.dev", "rolloutanalyses.penstock.dev"}


def test_models_outlive_an_uninstall(render: Render) -> None:
    crds = {c["metadata"]["name"]: c for c in render().all("CustomResourceDefinition")}

    assert crds.keys() == NAMES
    assert {c["metadata"]["annotations"]["helm.sh/resource-policy"] for c in crds.values()} == {"keep"}


def test_crds_can_be_left_out(render: Render) -> None:
    assert "CustomResourceDefinition" not in render(crds={"enabled": False}).kinds()


def test_crds_can_go_with_the_release(render: Render) -> None:
    for crd in render(crds={"keep": False, "annotations": {"a": "b"}}).all("CustomResourceDefinition"):
        assert crd["metadata"]["annotations"] == {"a": "b"}


def test_a_crd_passes_through_the_chart_unchanged(render: Render) -> None:
    generated = {c["metadata"]["name"]: c for c in map(_load, (ROOT / "crds").glob("*.yaml"))}

    for crd in render().all("CustomResourceDefinition"):
        assert crd["spec"] == generated[crd["metadata"]["name"]]["spec"]


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def test_the_charts_crds_are_the_generated_ones() -> None:
    sync = script(ROOT / "charts" / "sync")

    assert sync.drift(ROOT / "crds", ROOT / "charts/penstock/files/crds") == {}


def test_drift_is_seen(tmp_path: Path) -> None:
    sync = script(ROOT / "charts" / "sync")
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    (source / "new.yaml").write_text("1")
    (source / "edited.yaml").write_text("1")
    (target / "edited.yaml").write_text("2")
    (target / "gone.yaml").write_text("1")

    assert sync.drift(source, target) == {"new.yaml": b"1", "edited.yaml": b"1", "gone.yaml": None}


def test_the_default_runtime_becomes_pods(render: Render) -> None:
    runtime = render().runtime("onnxruntime")
    ClusterModelRuntime.model_validate(runtime)
    owner = pods.Owner("fraud", "ml", "uid-1")
    spec = {"model": {"uri": "https://models.example.com/fraud/1/model.onnx"}}

    chosen = pods.choose_runtime(spec, [runtime])
    frozen = pods.freeze(owner, spec, chosen, "penstock.local/runtime:dev", "bcdfg24567")
    server = frozen["podTemplate"]["spec"]["containers"][0]

    assert server["args"][:5] == ["serve", "--model-path", pods.MODEL_PATH, "--model-name", "fraud"]
    assert "$(" not in " ".join(server["args"])
    ports = {p["name"]: p["containerPort"] for p in server["ports"]}
    assert ports == runtime["spec"]["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["port"] in ports


def test_the_server_can_drain_before_it_is_killed(render: Render) -> None:
    spec = render().runtime("onnxruntime")["spec"]["template"]["spec"]
    args = spec["containers"][0]["args"]
    drain, shutdown = (float(args[args.index(f"--{n}-seconds") + 1]) for n in ("drain", "shutdown"))

    assert drain == 5
    assert drain + shutdown < spec["terminationGracePeriodSeconds"]


def test_runtime_values_reach_the_runtime(render: Render) -> None:
    rendered = render(
        image={"runtime": {"repository": "example.com/runtime", "tag": "1.2.3", "pullPolicy": "Always"}},
        runtimes={"onnxruntime": {"autoSelect": False, "resources": {"limits": {"memory": "8Gi"}}}},
    )
    spec = rendered.runtime("onnxruntime")["spec"]
    server = spec["template"]["spec"]["containers"][0]

    assert server["image"] == "example.com/runtime:1.2.3" == rendered.env()["PENSTOCK_RUNTIME_IMAGE"]
    assert server["imagePullPolicy"] == "Always"
    assert server["resources"]["limits"] == {"memory": "8Gi"}
    assert spec["formats"] == [{"name": "onnx", "autoSelect": False}]


def test_a_runtime_can_be_left_out(render: Render) -> None:
    data = render(runtimes={"onnxruntime": {"enabled": False}}).one("ConfigMap", "penstock-runtimes")["data"]

    assert data.keys() == {"apply.py"}


def test_an_edited_runtime_restarts_the_operator_that_applies_it(render: Render) -> None:
    def checksum(**values: Any) -> str:
        annotations = render(**values).one("Deployment")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["penstock.dev/runtimes-checksum"])

    assert checksum() == checksum(replicas=2)
    assert checksum() != checksum(runtimes={"onnxruntime": {"autoSelect": False}})


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_crd_fits_into_the_annotation_of_kubectl_apply(name: str) -> None:
    (path,) = (p for p in (ROOT / "crds").glob("*.yaml") if _load(p)["metadata"]["name"] == name)

    assert path.stat().st_size < 256 * 1024
