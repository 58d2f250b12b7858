"""Turns the models into CustomResourceDefinitions: `python -m penstock.api.schema [--check] [FOLDER]`.

Kubernetes wants a structural schema: no references, no unions, no nulls, OpenAPI 3.0's spelling.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from penstock.api.analysis import RolloutAnalysis
from penstock.api.modeldeployment import ModelDeployment
from penstock.api.resource import CATEGORY, GROUP, VERSION, Column, Resource, ResourceModel
from penstock.api.runtime import ClusterModelRuntime

KINDS: tuple[type[ResourceModel], ...] = (ModelDeployment, ClusterModelRuntime, RolloutAnalysis)

SIZE_LIMIT = 256 * 1024
"""Bytes that `kubectl apply` can keep of an object in its last-applied annotation."""

_HEADER = "# Generated from operator/src/penstock/api by `python -m penstock.api.schema`; do not edit.\n"

_STANDARD = {
    "apiVersion": {"type": "string", "description": "Version of this representation of an object."},
    "kind": {"type": "string", "description": "Kind of the object."},
}

_KEPT = (
    "type",
    "format",
    "description",
    "default",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "properties",
    "additionalProperties",
    "items",
)

_NAMED_TYPES = ("duration", "time")


def inlined(model: type[ResourceModel]) -> dict[str, Any]:
    """The schema of a whole object without references; `title` names the types that have a grammar."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    whole = _inline(schema, schema.get("$defs", {}))
    metadata: dict[str, Any] = {"type": "object"}
    if model.RESOURCE.name_rules:
        name = {"type": "string", "maxLength": 253, "description": "Name of the object."}
        metadata["properties"] = {"name": {**name, **model.RESOURCE.name_rules}}
    own = {name: part for name, part in whole["properties"].items() if name in ("spec", "status")}
    whole["properties"] = {**_STANDARD, "metadata": metadata, **own}
    return whole


def structural(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An inlined schema as the API server takes it."""
    kept = {key: schema[key] for key in _KEPT if key in schema}
    kept |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if "properties" in kept:
        kept["properties"] = {name: structural(part) for name, part in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = structural(kept[key])
    return kept


def _inline(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """One node with its references, optional types and numeric bounds resolved, and so all below it."""
    schema = dict(node)
    if "$ref" in schema:
        target = definitions[schema.pop("$ref").removeprefix("#/$defs/")]
        schema = {**target, **schema}
        return _inline(schema, definitions)
    if "anyOf" in schema:
        (only,) = [part for part in schema.pop("anyOf") if part != {"type": "null"}]
        return _inline({**only, **{k: v for k, v in schema.items() if k != "title"}}, definitions)
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in schema and not isinstance(schema[exclusive], bool):
            schema[inclusive], schema[exclusive] = schema[exclusive], True
    if schema.get("title") not in _NAMED_TYPES:
        schema.pop("title", None)
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            schema[key] = _inline(schema[key], definitions)
    if "properties" in schema:
        parts = schema["properties"].items()
        schema["properties"] = {name: _inline(part, definitions) for name, part in parts}
    return _with_server_default(schema)


def _with_server_default(schema: dict[str, Any]) -> dict[str, Any]:
    """Only literal defaults are the API server's; an object gets `{}`, so that those of its fields apply."""
    match schema.get("default"):
        case None | [] | "":
            schema.pop("default", None)
        case dict() if "properties" in schema:
            schema["default"] = {}
        case dict():
            schema.pop("default")
        case _:
            pass
    return schema


def custom_resource_definition(model: type[ResourceModel]) -> dict[str, Any]:
    """The CRD of a kind, as plain data."""
    resource: Resource = model.RESOURCE
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in resource.columns],
        "schema": {"openAPIV3Schema": structural(inlined(model))},
    }
    subresources: dict[str, Any] = {"status": {}} if resource.has_status else {}
    if resource.scale:
        subresources["scale"] = dict(resource.scale)
    if subresources:
        version["subresources"] = subresources
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.singular,
                "shortNames": [resource.short_name],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    return shown | ({"priority": column.priority} if column.priority else {})


def files() -> dict[str, str]:
    """File name and text of every CRD."""
    made = {}
    for model in KINDS:
        plain = json.loads(json.dumps(custom_resource_definition(model)))
        body = yaml.safe_dump(plain, sort_keys=False, width=110, allow_unicode=True)
        made[f"{GROUP}_{model.RESOURCE.plural}.yaml"] = _HEADER + body
    return made


def write_or_check(made: Mapping[str, str], folder: Path, check: bool, command: str) -> int:
    """Write the files; or, to check, say which of those in the folder differ. Returns the exit status."""
    if not check:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
        return 0
    stale = sorted(_drifted(made, folder))
    for name in stale:
        sys.stderr.write(f"{folder / name} is not what the models say: run `{command}`\n")
    return 1 if stale else 0


def _drifted(made: Mapping[str, str], folder: Path) -> Iterable[str]:
    for name, text in made.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield name


def main(arguments: list[str] | None = None) -> int:
    """Write or check the CRDs."""
    parser = argparse.ArgumentParser(prog="python -m penstock.api.schema", description="Write the CRDs.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("crds"), help="default: crds")
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    given = parser.parse_args(arguments)
    return write_or_check(files(), given.folder, given.check, "python -m penstock.api.schema")


if __name__ == "__main__":
    sys.exit(main())
