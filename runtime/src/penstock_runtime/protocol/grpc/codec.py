"""Inference requests and answers as gRPC messages, held to the same rules as those in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from penstock_runtime.protocol.binary_data import read_tensor, write_binary
from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.fit import MAX_ELEMENTS, NONE, Fit, InferRequest, check_served, count_rows
from penstock_runtime.protocol.grpc.contents import read_contents, write_contents
from penstock_runtime.protocol.grpc.inference_pb2 import ModelInferRequest, ModelInferResponse
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.protocol.wording import quote

_NOT_TYPED = "typed contents cannot carry; send the inputs as raw contents, then the answer is raw, too"

Output = tuple[str, str, np.ndarray[Any, Any]]


def parse(payload: bytes) -> ModelInferRequest:
    """Return the message; raises InvalidRequest if `payload` is none."""
    try:
        return ModelInferRequest.FromString(payload)
    except DecodeError:
        raise InvalidRequest("the message is no valid ModelInferRequest") from None


class MessageDecoder:
    """Decodes messages for one model.

    Tensors are all raw or all typed. Raw ones have exactly the bytes of their shape; typed ones have exactly its
    elements, in the field of their datatype. Parameters are ignored, as the protocol asks for unknown ones, but for
    those of outputs that ask for another answer than there would be.
    """

    def __init__(self, schema: ModelSchema, max_elements: int = MAX_ELEMENTS) -> None:
        """Prepare the lookups for `schema`; no tensor may have more than `max_elements`."""
        self._fit = Fit(schema, max_elements)
        self._all_binary = frozenset(self._fit.all_outputs)

    def decode(self, message: ModelInferRequest) -> InferRequest:
        """Return the request in `message`; raise InvalidRequest saying what is wrong and where.

        Every output of a raw request is to be sent raw, as clients that send raw tensors read no others.
        """
        fit = self._fit
        blobs = list(message.raw_input_contents)
        entries = message.inputs
        if blobs and len(blobs) != len(entries):
            raise InvalidRequest(
                f"{len(blobs)} raw contents for {len(entries)} inputs; there must be one for each, or none at all"
            )
        inputs: dict[str, np.ndarray[Any, Any]] = {}
        for index, entry in enumerate(entries):
            spec = fit.find_input(entry.name, inputs)
            fit.check_datatype(entry.datatype, spec)
            shape = fit.check_shape(list(entry.shape), spec)
            if not blobs:
                inputs[spec.name] = read_contents(entry.contents, shape, spec)
            elif entry.HasField("contents"):
                raise InvalidRequest(f"input {quote(spec.name)} has both 'contents' and raw contents; give one")
            else:
                inputs[spec.name] = read_tensor(blobs[index], shape, spec)
        fit.check_given(inputs)
        wanted = fit.all_outputs
        if message.outputs:
            asked: list[str] = []
            for output in message.outputs:
                name = fit.find_output(output.name, asked)
                check_served(output.parameters, name)
                asked.append(name)
            wanted = tuple(asked)
        binary = self._all_binary if blobs else NONE
        if fit.binary_only:
            fit.check_carried(wanted, binary, _NOT_TYPED)
        return InferRequest(message.id or None, inputs, wanted, count_rows(inputs), binary)


def encode(model: str, version: str, request_id: str | None, outputs: Iterable[Output], raw: bool) -> bytes:
    """Return the answer's message with its `outputs` (name, datatype, array); raises InferenceFailed."""
    answer = ModelInferResponse(model_name=model, model_version=version, id=request_id or "")
    for name, datatype, array in outputs:
        entry = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            answer.raw_output_contents.append(bytes(write_binary(array, datatype)))
        else:
            write_contents(entry.contents, array, datatype)
    return answer.SerializeToString()
