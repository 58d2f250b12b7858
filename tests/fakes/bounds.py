"""The bounds of our CRDs as an API server checks them: lengths, sizes and enumerations of a status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from penstock.api.analysis import RolloutAnalysis
from penstock.api.modeldeployment import ModelDeployment
from penstock.api.schema import inlined, structural
from penstock.core.objects import MODEL_DEPLOYMENT, ROLLOUT_ANALYSIS, Kind, Object

_MODELS = {MODEL_DEPLOYMENT: ModelDeployment, ROLLOUT_ANALYSIS: RolloutAnalysis}


@cache
def _status_schema(kind: Kind) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = structural(inlined(_MODELS[kind]))["properties"]["status"]
    return schema


def violations(kind: Kind, obj: Object) -> list[str]:
    """What an API server would refuse of an object's status; nothing for kinds that are not ours."""
    if kind not in _MODELS:
        return []
    return list(_walk(_status_schema(kind), obj.get("status") or {}, "status"))


def _walk(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{path}: Too long: may not be more than {schema['maxLength']} bytes"
        if value not in schema.get("enum", [value]):
            yield f"{path}: Unsupported value: {value!r}"
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{path}: Too many: must have at most {schema['maxItems']} items"
        for i, item in enumerate(value):
            yield from _walk(schema.get("items", {}), item, f"{path}[{i}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            field = schema.get("properties", {}).get(key)
            if field is not None:
                yield from _walk(field, item, f"{path}.{key}")
