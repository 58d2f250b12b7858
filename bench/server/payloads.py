"""Requests as bytes, and answers as tensors: the same for every server, and checked against ONNX Runtime alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from bench.server.cases import Protocol
from bench.server.messages import ModelInferRequest, ModelInferResponse

INFER_PATH = "/v2/models/m/infer"
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
# Rows that run together are summed in another order than alone.
_TOLERANCE = 1e-4
_GRPC_HEAD = struct.Struct(">?I")

Array = np.ndarray[Any, Any]


def request(protocol: Protocol, name: str, row: Array) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that ask for all outputs of FP32 `row`; for gRPC the bare message."""
    tensor: dict[str, Any] = {"name": name, "shape": row.shape, "datatype": "FP32"}
    match protocol:
        case "json":
            tensor["data"] = row.ravel()
            body = orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)
            return body, {"content-type": "application/json"}
        case "binary":
            tensor["parameters"] = {"binary_data_size": row.nbytes}
            head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
            headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
            return head + row.tobytes(), headers
        case "grpc":
            message = ModelInferRequest(model_name="m", raw_input_contents=[row.tobytes()])
            message.inputs.add(name=name, datatype="FP32", shape=row.shape)
            return message.SerializeToString(), {"content-type": "application/grpc", "te": "trailers"}


def grpc_frame(message: bytes) -> bytes:
    """Return `message` as it stands in an HTTP/2 body: uncompressed, behind its length."""
    return _GRPC_HEAD.pack(False, len(message)) + message


def read_answer(protocol: Protocol, body: bytes, headers: Mapping[str, str]) -> dict[str, Array]:
    """Return the outputs by name, each flat; raises ValueError, LookupError or TypeError for what is no answer."""
    if protocol == "grpc":
        message = ModelInferResponse.FromString(body)
        pairs = zip(message.outputs, message.raw_output_contents, strict=True)
        return {tensor.name: np.frombuffer(raw, _DTYPES[tensor.datatype]) for tensor, raw in pairs}
    length = headers.get("inference-header-content-length")
    at = len(body) if length is None else int(length)
    outputs: dict[str, Array] = {}
    for entry in orjson.loads(body[:at])["outputs"]:
        dtype = _DTYPES[entry["datatype"]]
        if "data" in entry:
            outputs[entry["name"]] = np.array(entry["data"], dtype).ravel()
        else:
            size = entry["parameters"]["binary_data_size"]
            outputs[entry["name"]] = np.frombuffer(body[at : at + size], dtype)
            at += size
    return outputs


def differences(expected: Mapping[str, Array], got: Mapping[str, Array]) -> str:
    """Return what is wrong with the outputs `got`, or an empty text."""
    if set(expected) != set(got):
        return f"outputs {sorted(got)}, not {sorted(expected)}"
    for name, array in expected.items():
        if got[name].shape != array.ravel().shape:
            return f"output {name} has {got[name].size} elements, not {array.size}"
        if not np.allclose(got[name], array.ravel(), rtol=_TOLERANCE, atol=_TOLERANCE):
            return f"output {name} is {got[name][:4]}, not {array.ravel()[:4]}"
    return ""
