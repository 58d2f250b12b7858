"""The CRDs: structural, bounded, described, free of defaults where a default would change a revision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import V1JSONSchemaProps

from penstock.api import reference, schema
from penstock.api.modeldeployment import ModelDeployment
from penstock.api.resource import ResourceModel

ROOT = Path(__file__).parents[3]
HASHED = ("model", "runtime", "resources", "template", "serving")


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, part in node.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


def crd_nodes(model: type[ResourceModel]) -> list[tuple[str, dict[str, Any]]]:
    crd = schema.custom_resource_definition(model)
    whole = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return [(path, node) for path, node in nodes(whole) if path not in ("", ".apiVersion", ".kind", ".metadata")]


each_kind = pytest.mark.parametrize("model", schema.KINDS, ids=lambda m: m.__name__)


def test_the_committed_crds_are_what_the_models_say() -> None:
    assert schema.main([str(ROOT / "crds"), "--check"]) == 0


def test_the_committed_reference_is_what_the_models_say() -> None:
    assert reference.main([str(ROOT / "docs/reference"), "--check"]) == 0


@pytest.mark.parametrize("command", [schema, reference])
def test_the_check_names_what_drifted(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path)]) == 0
    assert command.main([str(tmp_path), "--check"]) == 0
    changed = sorted(tmp_path.iterdir())[0]
    changed.write_text(changed.read_text() + "\n")
    assert command.main([str(tmp_path), "--check"]) == 1
    assert changed.name in capsys.readouterr().err
    changed.unlink()
    assert command.main([str(tmp_path), "--check"]) == 1


@each_kind
def test_every_field_is_described(model: type[ResourceModel]) -> None:
    silent = [p for p, node in crd_nodes(model) if not p.endswith("]") and not node.get("description")]
    assert silent == []


@each_kind
def test_every_list_map_and_string_is_bounded(model: type[ResourceModel]) -> None:
    def unbounded(node: dict[str, Any]) -> bool:
        match node.get("type"):
            case "string":
                return not ({"maxLength", "enum"} & node.keys())
            case "array":
                return "maxItems" not in node
            case _:
                return "additionalProperties" in node and "maxProperties" not in node

    assert [path for path, node in crd_nodes(model) if unbounded(node)] == []


@each_kind
def test_every_list_says_how_it_is_merged(model: type[ResourceModel]) -> None:
    lists = [(path, node) for path, node in crd_nodes(model) if node.get("type") == "array"]
    unsaid = [path for path, node in lists if "x-kubernetes-list-type" not in node]
    assert [path for path in unsaid if not path.startswith(".spec.template.spec")] == []


@each_kind
def test_the_schema_holds_only_what_the_api_server_knows(model: type[ResourceModel]) -> None:
    for _, node in crd_nodes(model):
        plain = {key.replace("$", ""): value for key, value in node.items() if not key.startswith("x-")}
        known = {camel: name for name, camel in V1JSONSchemaProps.attribute_map.items()}
        V1JSONSchemaProps(**{known[key]: value for key, value in plain.items()})


@each_kind
def test_each_file_fits_into_the_last_applied_annotation(model: type[ResourceModel]) -> None:
    name = f"penstock.dev_{model.RESOURCE.plural}.yaml"
    assert len(schema.files()[name].encode()) < schema.SIZE_LIMIT


def test_no_default_applies_to_what_makes_a_revision() -> None:
    found = [path for path, node in crd_nodes(ModelDeployment) if "default" in node]
    assert [path for path in found if path.split(".")[2] in HASHED] == []
    assert ".spec.rollout" in found


def test_a_status_has_no_defaults() -> None:
    for model in schema.KINDS:
        assert [p for p, node in crd_nodes(model) if p.startswith(".status") and "default" in node] == []


def test_every_default_is_that_of_the_model_too() -> None:
    """What the API server fills in and what the operator assumes must be the same."""
    parsed = ModelDeployment.from_wire({"spec": {"model": {"uri": "s3://bucket/key"}}}).to_wire()
    for path, node in crd_nodes(ModelDeployment):
        default = node.get("default")
        if default is None or default == {} or "[" in path:
            continue
        value: Any = parsed
        for name in path.strip(".").split("."):
            value = value[name]
        assert value == default, path


def test_optional_parts_are_not_nullable() -> None:
    assert [p for m in schema.KINDS for p, node in crd_nodes(m) if "nullable" in node or "anyOf" in node] == []


def test_the_scale_subresource_and_the_names_are_those_promised() -> None:
    crd = schema.custom_resource_definition(ModelDeployment)
    assert crd["spec"]["names"]["shortNames"] == ["mdep"]
    assert crd["spec"]["names"]["categories"] == ["penstock"]
    assert crd["spec"]["versions"][0]["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }


def test_the_example_of_the_reference_is_understood_whole() -> None:
    example = yaml.safe_load((ROOT / "docs/reference/example.yaml").read_text())
    parsed = ModelDeployment.from_wire(example).to_wire()
    assert parsed["spec"] == example["spec"]
