"""Inference requests decoded and checked against the model's schema, never guessed at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from penstock_runtime.protocol.binary_data import Blobs, read_text
from penstock_runtime.protocol.depth import check_depth
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.fit import MAX_ELEMENTS, NONE, Fit, InferRequest, check_served, count_rows
from penstock_runtime.protocol.json_data import read_json_data
from penstock_runtime.protocol.large_json import LARGE_BYTES, Numbers, parse_large
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.protocol.wording import names, quote

# Nothing but tensors without elements can be taken from it, so that all requests may share it.
_NO_BLOBS = Blobs(b"", 0)
_NOT_IN_JSON = "JSON cannot carry; ask for it as binary data (its parameter 'binary_data': true)"


class Decoder:
    """Decodes requests for one model.

    JSON data may be nested to the shape or flat in row-major order; binary data lies behind the JSON. Values
    are never converted silently: a fraction in an integer tensor, a boolean or a string among numbers, null,
    or a number out of range is an error. Unknown JSON keys are ignored, as the protocol asks.
    """

    def __init__(self, schema: ModelSchema, max_elements: int = MAX_ELEMENTS) -> None:
        """Prepare the lookups for `schema`; no tensor may have more than `max_elements`."""
        self._fit = Fit(schema, max_elements)

    def decode(self, body: bytes, header_length: int | None = None) -> InferRequest:
        """Return the request in `body`; raise InvalidRequest (400) saying what is wrong and where.

        `header_length`: the bytes of the JSON part; None: all are JSON; 0: there is no JSON, the body is the
        only input's tensor.
        """
        if header_length == 0:
            return self._decode_raw(body)
        if header_length is not None and header_length > len(body):
            raise InvalidRequest(
                f"Inference-Header-Content-Length is {header_length}, and the body ends after {len(body)} bytes"
            )
        text = body if header_length is None else body[:header_length]
        check_depth(text)
        message = (parse_large(text, self._fit.inputs) if len(text) >= LARGE_BYTES else None) or _parse(text)
        request_id = message.get("id")
        if request_id is not None and type(request_id) is not str:
            raise InvalidRequest("'id' must be a string")
        binary_output = False
        if "parameters" in message:
            binary_output = _flag(check_parameters(message["parameters"], "the request"), "binary_data_output")
        blobs = _NO_BLOBS if header_length is None else Blobs(body, header_length)
        inputs = self._decode_inputs(message.get("inputs"), text, blobs)
        if header_length is not None:
            blobs.finish()
        outputs = message.get("outputs")
        if outputs is None or outputs == []:
            wanted = self._fit.all_outputs
            binary = frozenset(wanted) if binary_output else NONE
        else:
            wanted, binary = self._decode_outputs(outputs, binary_output)
        if self._fit.binary_only:
            self._fit.check_carried(wanted, binary, _NOT_IN_JSON)
        return InferRequest(request_id, inputs, wanted, count_rows(inputs), binary)

    def _decode_inputs(self, entries: object, text: bytes, blobs: Blobs) -> dict[str, np.ndarray[Any, Any]]:
        if type(entries) is not list:
            raise InvalidRequest("'inputs' must be a list of tensors")
        inputs: dict[str, np.ndarray[Any, Any]] = {}
        known = self._fit.inputs
        for entry in entries:
            if type(entry) is not dict:
                raise InvalidRequest("every element of 'inputs' must be an object")
            name = entry.get("name")
            spec = known.get(name) if type(name) is str else None
            if spec is None or name in inputs:
                spec = self._fit.find_input(name, inputs)
            inputs[spec.name] = self._decode_tensor(entry, spec, text, blobs)
        if len(inputs) != len(self._fit.inputs):
            self._fit.check_given(inputs)
        return inputs

    def _decode_tensor(
        self, entry: Mapping[str, Any], spec: TensorSpec, text: bytes, blobs: Blobs
    ) -> np.ndarray[Any, Any]:
        size = None
        if "parameters" in entry:
            size = check_parameters(entry["parameters"], f"input {quote(spec.name)}").get("binary_data_size")
        if entry.get("datatype") != spec.datatype:
            self._fit.check_datatype(entry.get("datatype"), spec)
        shape = self._fit.check_shape(entry.get("shape"), spec)
        if size is not None:
            if "data" in entry:
                raise InvalidRequest(f"input {quote(spec.name)} has both 'data' and 'binary_data_size'; give one")
            return blobs.take(size, shape, spec)
        data = entry.get("data")
        return data.array if type(data) is Numbers else read_json_data(data, shape, spec, text)

    def _decode_outputs(self, entries: object, default: bool) -> tuple[tuple[str, ...], frozenset[str]]:
        if type(entries) is not list:
            raise InvalidRequest("'outputs' must be a list of objects with a 'name'")
        wanted: list[str] = []
        binary: list[str] = []
        for entry in entries:
            name = self._fit.find_output(entry.get("name") if type(entry) is dict else None, wanted)
            as_binary = default
            if "parameters" in entry:
                parameters = check_parameters(entry["parameters"], f"output {quote(name)}")
                check_served(parameters, name)
                as_binary = _flag(parameters, "binary_data", default)
            if as_binary:
                binary.append(name)
            wanted.append(name)
        return tuple(wanted), frozenset(binary) if binary else NONE

    def _decode_raw(self, body: bytes) -> InferRequest:
        if len(self._fit.inputs) != 1:
            raise InvalidRequest(
                f"a request without JSON is for models with one input; this one takes {names(self._fit.inputs)}"
            )
        spec = next(iter(self._fit.inputs.values()))
        if spec.datatype == "BYTES":
            shape = _shape_of_one(spec)
            tensor = np.empty(shape, np.object_)
            tensor[...] = read_text(body, 0, spec)
        else:
            shape = _deduced_shape(spec, len(body))
            self._fit.check_shape(shape, spec)
            blobs = Blobs(body, 0)
            tensor = blobs.take(len(body), shape, spec)
        inputs = {spec.name: tensor}
        wanted = self._fit.all_outputs
        return InferRequest(None, inputs, wanted, count_rows(inputs), frozenset(wanted))


def _parse(text: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if type(message) is not dict:
        raise InvalidRequest("the body must be a JSON object with a list 'inputs'")
    return message


def check_parameters(value: object, where: str) -> dict[str, Any]:
    """Return parameters, which must be strings, numbers and booleans by name; `where` names their owner."""
    if type(value) is not dict:
        raise InvalidRequest(f"'parameters' of {where} must be an object")
    for key, item in value.items():
        if type(item) not in (str, int, float, bool):
            raise InvalidRequest(f"parameter {quote(key)} of {where} must be a string, number or boolean")
    return value


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InvalidRequest(f"parameter '{name}' must be true or false")
    return value


def _shape_of_one(spec: TensorSpec) -> list[int]:
    shape = [1 if dim == -1 else dim for dim in spec.shape or ()]
    if math.prod(shape) != 1:
        raise InvalidRequest(
            f"without JSON the body is one text, and input {quote(spec.name)} of shape {shape} takes {math.prod(shape)}"
        )
    return shape


def _deduced_shape(spec: TensorSpec, size: int) -> list[int]:
    """Return the shape that `size` bytes must have: one variable dimension follows from it.

    Where there are two of them the first is taken for the batch, which is 1.
    """
    shape = list(spec.shape or ())
    if shape.count(-1) == 2 and shape[0] == -1:
        shape[0] = 1
    if spec.shape is None or shape.count(-1) > 1:
        raise InvalidRequest(
            f"without JSON the shape of input {quote(spec.name)} cannot be told: it has more than one variable "
            "dimension besides the batch"
        )
    if -1 in shape:
        others = spec.dtype.itemsize * math.prod(dim for dim in shape if dim != -1)
        if others == 0 or size % others:
            raise InvalidRequest(
                f"the body is {size} bytes, which is no multiple of the {others} that {spec.datatype} input "
                f"{quote(spec.name)} of shape {shape} takes"
            )
        shape[shape.index(-1)] = size // others
    return shape
