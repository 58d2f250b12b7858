"""Inference requests in JSON: decoded, checked against the model's schema, never guessed at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

_JSON_NAMES = {
    bool: "a boolean", str: "a string", int: "an integer", float: "a number with a fraction or exponent",
    type(None): "null", list: "a list", dict: "an object",
}  # fmt: skip


class InferRequest(NamedTuple):
    """A request that fits the model: tensors by input name, outputs asked for (in order), rows."""

    id: str | None
    inputs: dict[str, np.ndarray[Any, Any]]
    outputs: tuple[str, ...]
    rows: int


class Decoder:
    """Decodes requests for one model.

    Data may be nested to the shape or flat in row-major order. Values are never converted silently: a
    fraction in an integer tensor, a boolean or a string among numbers, null, or a number out of range is
    an error. Unknown JSON keys are ignored, as the protocol asks.
    """

    def __init__(self, schema: ModelSchema) -> None:
        """Prepare the lookups for `schema`."""
        self._inputs = {spec.name: (spec, spec.dtype, spec.json_types) for spec in schema.inputs}
        self._outputs = {spec.name: spec for spec in schema.outputs}
        self._all_outputs = tuple(self._outputs)
        self._binary_only = tuple(s.name for s in schema.outputs if not s.json_types)

    def decode(self, body: bytes) -> InferRequest:
        """Return the request in `body`; raise InvalidRequest (400) saying what is wrong and where."""
        try:
            message = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
        if type(message) is not dict:
            raise InvalidRequest("the body must be a JSON object with a list 'inputs'")
        request_id = message.get("id")
        if request_id is not None and type(request_id) is not str:
            raise InvalidRequest("'id' must be a string")
        if "parameters" in message:
            check_parameters(message["parameters"], "the request")
        inputs = self._decode_inputs(message.get("inputs"))
        outputs = message.get("outputs")
        wanted = self._all_outputs if not outputs and _absent(outputs) else self._decode_outputs(outputs)
        if self._binary_only:
            self._check_json_outputs(wanted)
        first = next(iter(inputs.values())) if inputs else None
        rows = first.shape[0] if first is not None and first.ndim else 1
        return InferRequest(request_id, inputs, wanted, rows)

    def _decode_inputs(self, entries: object) -> dict[str, np.ndarray[Any, Any]]:
        if type(entries) is not list:
            raise InvalidRequest("'inputs' must be a list of tensors")
        inputs: dict[str, np.ndarray[Any, Any]] = {}
        for entry in entries:
            if type(entry) is not dict:
                raise InvalidRequest("every element of 'inputs' must be an object")
            name = entry.get("name")
            known = self._inputs.get(name) if type(name) is str else None
            if known is None or type(name) is not str:
                raise InvalidRequest(f"unknown input {_quote(name)}; the model takes {_names(self._inputs)}")
            if name in inputs:
                raise InvalidRequest(f"input {_quote(name)} is given twice")
            if "parameters" in entry:
                check_parameters(entry["parameters"], f"input {_quote(name)}")
            inputs[name] = _decode_tensor(entry, *known)
        if len(inputs) != len(self._inputs):
            missing = [name for name in self._inputs if name not in inputs]
            raise InvalidRequest(f"missing input {_names(missing)}; the model takes {_names(self._inputs)}")
        return inputs

    def _decode_outputs(self, entries: object) -> tuple[str, ...]:
        if type(entries) is not list:
            raise InvalidRequest("'outputs' must be a list of objects with a 'name'")
        wanted: list[str] = []
        for entry in entries:
            name = entry.get("name") if type(entry) is dict else None
            if type(name) is not str or name not in self._outputs:
                raise InvalidRequest(f"unknown output {_quote(name)}; the model gives {_names(self._outputs)}")
            if name in wanted:
                raise InvalidRequest(f"output {_quote(name)} is asked for twice")
            if "parameters" in entry:
                check_parameters(entry["parameters"], f"output {_quote(name)}")
            wanted.append(name)
        return tuple(wanted)

    def _check_json_outputs(self, wanted: tuple[str, ...]) -> None:
        for name in wanted:
            if name in self._binary_only:
                kind = self._outputs[name].datatype
                raise InvalidRequest(f"output {_quote(name)} is {kind}, which JSON cannot carry; ask for others")


def _absent(outputs: object) -> bool:
    return outputs is None or outputs == []


def check_parameters(value: object, where: str) -> None:
    """Refuse parameters that are not an object of strings, numbers and booleans; `where` names the owner."""
    if type(value) is not dict:
        raise InvalidRequest(f"'parameters' of {where} must be an object")
    for key, item in value.items():
        if type(item) not in (str, int, float, bool):
            raise InvalidRequest(f"parameter {_quote(key)} of {where} must be a string, number or boolean")


def _decode_tensor(
    entry: Mapping[str, Any], spec: TensorSpec, dtype: np.dtype[Any], json_types: frozenset[type]
) -> np.ndarray[Any, Any]:
    if entry.get("datatype") != spec.datatype:
        raise InvalidRequest(
            f"input {_quote(spec.name)}: datatype is {_quote(entry.get('datatype'))}, the model takes {spec.datatype}"
        )
    if not json_types:
        raise InvalidRequest(f"input {_quote(spec.name)} is {spec.datatype}, which JSON cannot carry")
    shape = _check_shape(entry.get("shape"), spec)
    data = entry.get("data")
    if type(data) is not list:
        raise InvalidRequest(f"input {_quote(spec.name)}: 'data' must be a list")
    flat = _flatten(data, shape, spec)
    if not json_types.issuperset(map(type, flat)):
        wrong = next(item for item in flat if type(item) not in json_types)
        raise InvalidRequest(
            f"input {_quote(spec.name)}: {_JSON_NAMES[type(wrong)]} cannot be an element of {spec.datatype}"
        )
    return _to_array(flat, shape, spec, dtype)


def _check_shape(shape: object, spec: TensorSpec) -> list[int]:
    if type(shape) is not list or not all(type(dim) is int and dim >= 0 for dim in shape):
        raise InvalidRequest(f"input {_quote(spec.name)}: 'shape' must be a list of integers >= 0")
    expected = spec.shape
    if expected is None:
        if len(shape) > 16:
            raise InvalidRequest(f"input {_quote(spec.name)}: more than 16 dimensions")
        return shape
    if len(shape) != len(expected) or any(want not in (-1, got) for want, got in zip(expected, shape, strict=True)):
        raise InvalidRequest(
            f"input {_quote(spec.name)}: shape {shape} does not fit the model's {list(expected)} (-1: any size)"
        )
    return shape


def _flatten(data: list[Any], shape: list[int], spec: TensorSpec) -> list[Any]:
    if data and type(data[0]) is list:
        if len(data) != (shape[0] if shape else -1):
            raise _ragged(spec, shape)
        for dim in shape[1:]:
            if set(map(type, data)) != {list} or set(map(len, data)) != {dim}:
                raise _ragged(spec, shape)
            data = list(chain.from_iterable(data))
    count = math.prod(shape)
    if len(data) != count:
        raise InvalidRequest(f"input {_quote(spec.name)}: {len(data)} elements in 'data', shape {shape} needs {count}")
    return data


def _ragged(spec: TensorSpec, shape: list[int]) -> InvalidRequest:
    return InvalidRequest(f"input {_quote(spec.name)}: nested 'data' does not have the shape {shape}")


def _to_array(flat: list[Any], shape: list[int], spec: TensorSpec, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype).reshape(shape)
    except (OverflowError, FloatingPointError, ValueError):
        raise InvalidRequest(f"input {_quote(spec.name)}: a value is out of the range of {spec.datatype}") from None


def _quote(value: object) -> str:
    return f"'{value[:80]}'" if type(value) is str else "without a name" if value is None else "of a wrong type"


def _names(names: object) -> str:
    return ", ".join(f"'{name}'" for name in names)  # type: ignore[attr-defined]
