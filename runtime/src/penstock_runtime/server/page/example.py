"""Requests and answers in JSON as a person reads and edits them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

# A larger tensor is nothing to edit by hand.
MAX_ELEMENTS = 4096


def example_request(schema: ModelSchema) -> str | None:
    """Return a request of one row of zeros, or empty strings; None if it is too large or needs binary data."""
    shapes = [[1 if dim == -1 else dim for dim in spec.shape or ()] for spec in schema.inputs]
    if any(math.prod(shape) > MAX_ELEMENTS for shape in shapes):
        return None
    if not all(spec.json_types for spec in (*schema.inputs, *schema.outputs)):
        return None
    inputs = [
        {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": _nested(_blank(spec), shape)}
        for spec, shape in zip(schema.inputs, shapes, strict=True)
    ]
    return pretty({"inputs": inputs})


def _blank(spec: TensorSpec) -> str | bool | float | int:
    if spec.datatype == "BYTES":
        return ""
    if spec.datatype == "BOOL":
        return False
    return 0.0 if spec.datatype.startswith("FP") else 0


def _nested(value: object, shape: Sequence[int]) -> Any:
    """Return lists within lists of that shape; a shape without dimensions is a list of one."""
    if len(shape) <= 1:
        return [value] * math.prod(shape)
    return [_nested(value, shape[1:]) for _ in range(shape[0])]


def pretty(value: Any, indent: str = "") -> str:
    """Return JSON with objects spread over lines, and lists of values, however nested, on one each."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{inner}{json.dumps(key)}: {pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(inner + pretty(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
