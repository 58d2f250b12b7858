"""TensorFlow Serving's REST answers: predictions by output, a model's state, its schema in the protocol's terms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

# What an output is called where the answer does not: if there is only one.
UNNAMED = "output"
# TensorFlow's own names of what classification and regression give.
CLASSES, SCORES, VALUES = "classes", "scores", "outputs"

_DATATYPES = {
    "DT_FLOAT": "FP32", "DT_DOUBLE": "FP64", "DT_HALF": "FP16", "DT_BFLOAT16": "BF16", "DT_BOOL": "BOOL",
    "DT_STRING": "BYTES", "DT_INT8": "INT8", "DT_INT16": "INT16", "DT_INT32": "INT32", "DT_INT64": "INT64",
    "DT_UINT8": "UINT8", "DT_UINT16": "UINT16", "DT_UINT32": "UINT32", "DT_UINT64": "UINT64",
}  # fmt: skip
_BY_TYPE = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}


class Columns(NamedTuple):
    """An answer's outputs by name, as JSON has them, and how many rows each has."""

    rows: int
    values: Mapping[str, Any]


def read_columns(body: bytes, verb: str) -> Columns:
    """Return the outputs of an answer to :predict, :classify or :regress; raises ValueError if it is none."""
    document = _parse(body)
    if not isinstance(document, dict):
        raise ValueError("no object")
    if verb == "predict" and "outputs" in document:
        outputs = document["outputs"]
        columns = outputs if isinstance(outputs, dict) else {UNNAMED: outputs}
        first = next(iter(columns.values()), None)
        return Columns(len(first) if isinstance(first, list) else 1, columns)
    rows = document.get("predictions" if verb == "predict" else "results")
    if not isinstance(rows, list):
        raise ValueError("no list of predictions")
    if verb == "classify":
        return columns_of_scores(rows)
    # Bytes come as an object too, and are no text to compare labels with.
    if rows and isinstance(rows[0], dict) and rows[0].keys() != {"b64"}:
        try:
            return Columns(len(rows), {name: [row[name] for row in rows] for name in rows[0]})
        except (KeyError, TypeError):
            raise ValueError("rows with different outputs") from None
    return Columns(len(rows), {VALUES if verb == "regress" else UNNAMED: rows})


def specs_of(columns: Columns) -> tuple[TensorSpec, ...]:
    """Return what there is to decide by: outputs with a datatype, and classes only if there is one a row."""
    specs = []
    for name, value in columns.values.items():
        shape, leaf = [], value
        while isinstance(leaf, list) and leaf:
            shape.append(len(leaf))
            leaf = leaf[0]
        datatype = _BY_TYPE.get(type(leaf))
        if datatype is not None and (datatype == "FP64" or math.prod(shape) == columns.rows):
            specs.append(TensorSpec(name, datatype, None))
    return tuple(specs)


def array_of(value: Any) -> np.ndarray[Any, Any]:
    """Return the tensor that `value` is in JSON; raises ValueError if its elements are not of one kind."""
    array = np.array(value)
    if array.dtype.kind == "U":
        if not _all_texts(value):
            raise ValueError("texts and others in one output")
        return array.astype(object)
    if array.dtype.kind not in "biuf":
        raise ValueError("neither numbers nor texts")
    return array


def _all_texts(value: Any) -> bool:
    return all(map(_all_texts, value)) if isinstance(value, list) else type(value) is str


def columns_of_scores(rows: Sequence[Any]) -> Columns:
    """Return what a classification says, of which each row has pairs of label and score; raises ValueError if not.

    That is the label with the best score of each row, unless the model has no labels; and the scores.
    """
    try:
        scores = [[float(score) for _, score in row] for row in rows]
        best = [row[max(range(len(row)), key=[score for _, score in row].__getitem__)][0] for row in rows]
    except (TypeError, ValueError):
        raise ValueError("no pairs of label and score") from None
    return Columns(len(rows), {CLASSES: best, SCORES: scores} if any(best) else {SCORES: scores})


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # TensorFlow Serving writes NaN and Infinity as they are, which JSON has not.
        if b"NaN" not in body and b"Infinity" not in body:
            raise
    return json.loads(body)


def why_not_available(body: bytes) -> str | None:
    """Return why the model behind a status (`GET /v1/models/NAME`) does not serve; None: a version is AVAILABLE.

    Raises ValueError if `body` is no status.
    """
    try:
        versions = {entry["version"]: entry for entry in orjson.loads(body)["model_version_status"]}
        states = {version: str(entry["state"]) for version, entry in versions.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"no status of a model: {type(error).__name__}") from None
    if "AVAILABLE" in states.values():
        return None
    told = [f"version {version} is {state}" for version, state in list(states.items())[:5]]
    return f"no version of the model is available: {', '.join(told) or 'there is none'}"


def read_metadata(body: bytes) -> tuple[str, ModelSchema]:
    """Return version and schema in the answer to `GET /v1/models/NAME/metadata`; raises ValueError if it is none.

    The schema is that of the signature that answers where a request names none.
    """
    try:
        document = orjson.loads(body)
        signatures = document["metadata"]["signature_def"]["signature_def"]
        # Requests without a name go to this one.
        signature = signatures["serving_default"]
        inputs, outputs = (
            tuple(_spec(name, info) for name, info in sorted(signature.get(side, {}).items()))
            for side in ("inputs", "outputs")
        )
        return str(document["model_spec"]["version"]), ModelSchema(inputs, outputs)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no metadata with the signature serving_default: {type(error).__name__} {error}") from None


def _spec(name: str, info: Mapping[str, Any]) -> TensorSpec:
    shape = info.get("tensor_shape", {})
    dims = None if shape.get("unknown_rank") else tuple(int(dim["size"]) for dim in shape.get("dim", ()))
    return TensorSpec(name, _DATATYPES.get(info["dtype"], str(info["dtype"])), dims)
