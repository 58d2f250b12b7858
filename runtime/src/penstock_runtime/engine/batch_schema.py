"""What a model's schema says about running rows of several requests together."""

from __future__ import annotations

from penstock_runtime.protocol.schema import ModelSchema


def why_not_by_schema(schema: ModelSchema) -> str | None:
    """Return why rows of several requests cannot be one run, None if every first dimension is open."""
    for role, specs in (("input", schema.inputs), ("output", schema.outputs)):
        for spec in specs:
            if spec.shape is None:
                return f"the model does not tell the shape of {role} '{spec.name}'"
            if spec.shape[0] != -1:
                return f"the first dimension of {role} '{spec.name}' is fixed at {spec.shape[0]}"
    return None if schema.inputs else "the model has no input"
