"""ONNX's types of inputs and outputs, in the protocol's terms."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.protocol.schema import TensorSpec

_DATATYPES = {
    "bool": "BOOL", "string": "BYTES", "float16": "FP16", "float": "FP32", "double": "FP64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
}  # fmt: skip


def tensor_spec(name: str, onnx_type: str, shape: Sequence[object], role: str) -> TensorSpec:
    """Return the input or output (`role`) of a type such as "tensor(float)".

    Sizes that are not whole numbers are variable; an unknown rank is an empty shape, as ONNX Runtime shows it.
    Raises ModelLoadError if it cannot be served.
    """
    match = re.fullmatch(r"tensor\((\w+)\)", onnx_type)
    if match is None:
        hint = (
            "a sequence of maps is what skl2onnx's ZipMap makes: export with "
            "to_onnx(..., options={id(model): {'zipmap': False}})"
            if onnx_type.startswith("seq(map")
            else "only tensors can be served"
        )
        raise ModelLoadError(f"{role} '{name}' is of type {onnx_type}, not a tensor; {hint}")
    datatype = _DATATYPES.get(match.group(1))
    if datatype is None:
        hint = (
            "numpy has no bfloat16, and ONNX Runtime hands tensors over through numpy: give the model a Cast to "
            "float or float16 there"
            if match.group(1) == "bfloat16"
            else "the protocol does not know it"
        )
        raise ModelLoadError(f"{role} '{name}' is of type {onnx_type}; {hint}")
    dims = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in shape)
    return TensorSpec(name, datatype, dims or None)
