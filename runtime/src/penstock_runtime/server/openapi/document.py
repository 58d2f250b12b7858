"""An OpenAPI 3.1 document of the paths of one port, with those parts that the paths refer to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock_runtime import __version__
from penstock_runtime.server.openapi.parts import (
    HEADERS,
    RESPONSES,
    Paths,
    answered,
    operation,
    parameters,
    readable,
)
from penstock_runtime.server.openapi.schemas import SCHEMAS
from penstock_runtime.server.openapi.tokens import SCHEMES, Guarded, behind_tokens

PATH = "/openapi.json"
_REF = "#/components/"


def document(
    title: str,
    description: str,
    paths: Paths,
    models: Sequence[str],
    guarded: Guarded | None = None,
) -> dict[str, Any]:
    """Return the document of `paths` by a server that has `models`; `guarded`: where tokens are asked for."""
    described: Paths = {PATH: _ITSELF, **paths}
    if guarded is not None:
        described = behind_tokens(described, guarded)
    components = {
        "schemas": SCHEMAS, "responses": RESPONSES, "headers": HEADERS, "parameters": parameters(models),
    }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": __version__,
            "summary": "The Open Inference Protocol (V2)",
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": described,
        "components": {**_used(described, components), **_schemes(described)},
    }


def _used(paths: Paths, components: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return those of the components that `paths` need, directly or by others."""
    used: dict[str, dict[str, Any]] = {}
    waiting = list(_refs(paths))
    while waiting:
        kind, name = waiting.pop()
        if name not in used.setdefault(kind, {}):
            used[kind][name] = components[kind][name]
            waiting += _refs(components[kind][name])
    return {kind: dict(sorted(items.items())) for kind, items in sorted(used.items())}


def _schemes(paths: Paths) -> dict[str, Any]:
    used = {
        name for item in paths.values() for operation in item.values() if isinstance(operation, Mapping)
        for each in operation.get("security", ()) for name in each
    }  # fmt: skip
    return {"securitySchemes": {name: SCHEMES[name] for name in sorted(used)}} if used else {}


def _refs(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        ref = value.get("$ref")
        if type(ref) is str:
            kind, _, name = ref.removeprefix(_REF).partition("/")
            yield kind, name
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)


_ITSELF = readable(
    operation(
        "getOpenapi", "This document", "server",
        answered("The description of this port.", {"type": "object", "required": ["openapi", "paths"]}),
    )
)  # fmt: skip
