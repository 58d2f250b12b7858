"""What the documentation says exists: links lead somewhere, manifests are valid, reasons are explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.api.modeldeployment import ModelDeployment
from penstock.api.resource import ResourceModel
from penstock.api.runtime import ClusterModelRuntime
from penstock.core.strategy import strategy_of

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted((ROOT / "operator/src/penstock").rglob("*.py"))
KINDS: dict[str, type[ResourceModel]] = {"ModelDeployment": ModelDeployment, "ClusterModelRuntime": ClusterModelRuntime}


def named(path: Path) -> str:
    """A page's path within the project, for test ids."""
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.strip().replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def manifests(page: Path) -> Iterator[dict[str, Any]]:
    """The Penstock objects in a page's YAML blocks, also those within shell commands."""
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.get("kind") in KINDS:
                yield document


def schema_of(kind: str) -> dict[str, Any]:
    """The OpenAPI schema of a kind, from its CRD."""
    for path in (ROOT / "crds").glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())
        if crd["spec"]["names"]["kind"] == kind:
            schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            return schema
    raise AssertionError(f"no CRD of {kind}")


def unknown_fields(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """Fields of a value that its schema does not have."""
    match value:
        case dict() if "properties" in schema:
            for name, item in value.items():
                known = schema["properties"].get(name)
                if known is not None:
                    yield from unknown_fields(item, known, f"{where}.{name}")
                elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                    yield f"{where}.{name}"
        case list():
            for item in value:
                yield from unknown_fields(item, schema.get("items", {}), f"{where}[]")


@pytest.mark.parametrize("page", [p for p in PAGES if any(manifests(p))], ids=named)
def test_manifests_have_only_fields_that_exist(page: Path) -> None:
    for manifest in manifests(page):
        KINDS[manifest["kind"]].model_validate(manifest)
        spec = schema_of(manifest["kind"])["properties"]["spec"]
        assert list(unknown_fields(manifest["spec"], spec, "spec")) == []


@pytest.mark.parametrize("page", [p for p in PAGES if any(manifests(p))], ids=named)
def test_steps_in_manifests_can_be_made(page: Path) -> None:
    for manifest in manifests(page):
        if manifest["kind"] == "ModelDeployment":
            assert strategy_of(ModelDeployment.model_validate(manifest).spec).problem == ""


def used_reasons() -> set[str]:
    """Reasons that the operator's code gives, by their words."""
    text = "\n".join(path.read_text() for path in SOURCES)
    members = dict(re.findall(r'^    ([A-Z_]+) = "([A-Z][A-Za-z]+)"$', text, flags=re.MULTILINE))
    words = {members[name] for name in re.findall(r"\bReason\.([A-Z_]+)\b", text)}
    return words | set(re.findall(r'Unrenderable\(\s*"(\w+)"', text)) | set(re.findall(r'\bFailure\("(\w+)"', text))


def test_every_reason_is_explained() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    explained = set(re.findall(r"`(\w+)`", page))

    assert used_reasons() - explained == set()


def test_the_guard_on_reasons_sees_them() -> None:
    assert {"GateFailed", "NoSupportingRuntime", "OutOfMemory", "MoreLabelsNeeded"} <= used_reasons()


def test_the_tests_that_conformance_names_are_there() -> None:
    named_there = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "conformance.md").read_text()))
    sources = "\n".join(file.read_text() for file in (ROOT / "tests" / "unit" / "runtime").glob("test_*.py"))
    assert len(named_there) > 30
    assert named_there <= set(re.findall(r"^(?:async )?def (test_\w+)", sources, flags=re.MULTILINE))
