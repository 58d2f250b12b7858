"""The model configuration extension: what a tool that measures or calls a model asks first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_runtime.protocol.schema import ModelSchema, TensorSpec


def describe_config(
    schema: ModelSchema,
    name: str,
    instances: int,
    parameters: Mapping[str, str | int | float],
    *,
    gpu: bool = False,
) -> dict[str, Any]:
    """Return the configuration; `instances`: inferences that run at once, `parameters`: what was set or measured.

    The batch is a dimension like any other here, which the extension says by a max_batch_size of 0.
    """
    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [_describe(spec) for spec in schema.inputs],
        "output": [_describe(spec) for spec in schema.outputs],
        "instance_group": [{"name": name, "kind": "KIND_GPU" if gpu else "KIND_CPU", "count": instances}],
        "parameters": {key: {"string_value": str(value)} for key, value in parameters.items()},
    }


def _describe(spec: TensorSpec) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": spec.describe()["shape"]}
