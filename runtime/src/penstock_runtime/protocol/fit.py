"""Whether what a request names and says of its tensors fits the model: the same for every form it comes in."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from penstock_runtime.protocol.errors import InvalidRequest
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.protocol.wording import names, quote

MAX_DIMENSIONS = 16
MAX_ELEMENTS = 64 * 2**20

# Parameters of requested outputs, of extensions that other servers have. Who sends them would misread the answer.
_NOT_SERVED = {"classification": "classification", "shared_memory_region": "shared memory"}

NONE: frozenset[str] = frozenset()


class InferRequest(NamedTuple):
    """A request that fits the model: tensors by input name, outputs asked for (in order), rows.

    `binary`: those of the outputs that are to be sent in binary form.
    """

    id: str | None
    inputs: dict[str, np.ndarray[Any, Any]]
    outputs: tuple[str, ...]
    rows: int
    binary: frozenset[str] = NONE


class Fit:
    """What one model takes and gives. Every method raises InvalidRequest where a request asks for something else."""

    def __init__(self, schema: ModelSchema, max_elements: int = MAX_ELEMENTS) -> None:
        """Prepare the lookups for `schema`; no tensor may have more than `max_elements`."""
        self.inputs = {spec.name: spec for spec in schema.inputs}
        self.outputs = {spec.name: spec for spec in schema.outputs}
        self.all_outputs = tuple(self.outputs)
        # Outputs that only binary data can carry.
        self.binary_only = tuple(spec.name for spec in schema.outputs if not spec.json_types)
        self._max_elements = max_elements

    def find_input(self, name: object, given: Collection[str]) -> TensorSpec:
        """Return the input of that name, which must not be among those `given` already."""
        spec = self.inputs.get(name) if type(name) is str else None
        if spec is None:
            raise InvalidRequest(f"unknown input {quote(name)}; the model takes {names(self.inputs)}")
        if name in given:
            raise InvalidRequest(f"input {quote(name)} is given twice")
        return spec

    def check_given(self, given: Collection[str]) -> None:
        """Require every input."""
        if len(given) != len(self.inputs):
            missing = [name for name in self.inputs if name not in given]
            raise InvalidRequest(f"missing input {names(missing)}; the model takes {names(self.inputs)}")

    def check_datatype(self, datatype: object, spec: TensorSpec) -> None:
        """Require the datatype of `spec`."""
        if datatype != spec.datatype:
            raise InvalidRequest(
                f"input {quote(spec.name)}: datatype is {quote(datatype)}, the model takes {spec.datatype}"
            )

    def check_shape(self, shape: object, spec: TensorSpec) -> list[int]:
        """Return the shape if it is one and fits `spec`, within the bound on elements."""
        if type(shape) is not list:
            raise _no_shape(spec)
        if len(shape) > MAX_DIMENSIONS:
            # Finding their product could take minutes.
            raise InvalidRequest(
                f"input {quote(spec.name)}: 'shape' has {len(shape)} dimensions, beyond {MAX_DIMENSIONS}"
            )
        elements = 1
        for dim in shape:
            if type(dim) is not int or dim < 0:
                raise _no_shape(spec)
            # A size of 0 hides the others, and a model may make a tensor of those alone.
            elements *= dim or 1
        expected = spec.shape
        if expected is not None:
            fits = len(shape) == len(expected)
            for want, got in zip(expected, shape, strict=False):
                if want not in (-1, got):
                    fits = False
            if not fits:
                raise InvalidRequest(
                    f"input {quote(spec.name)}: shape {shape} does not fit the model's {list(expected)} (-1: any size)"
                )
        if elements > self._max_elements:
            raise InvalidRequest(f"input {quote(spec.name)}: shape {shape} is beyond {self._max_elements} elements")
        return shape

    def find_output(self, name: object, wanted: Sequence[str]) -> str:
        """Return the output's name, which must not be among those `wanted` already."""
        if type(name) is not str or name not in self.outputs:
            raise InvalidRequest(f"unknown output {quote(name)}; the model gives {names(self.outputs)}")
        if name in wanted:
            raise InvalidRequest(f"output {quote(name)} is asked for twice")
        return name

    def check_carried(self, wanted: Iterable[str], binary: Collection[str], instead: str) -> None:
        """Require that outputs which only binary data can carry are binary; `instead`: what cannot, and what to do."""
        for name in self.binary_only:
            if name in wanted and name not in binary:
                raise InvalidRequest(f"output {quote(name)} is {self.outputs[name].datatype}, which {instead}")


def check_served(parameters: Container[str], output: str) -> None:
    """Require that nothing is asked of an output which would change what is answered, and which is not there."""
    for name, extension in _NOT_SERVED.items():
        if name in parameters:
            raise InvalidRequest(
                f"output {quote(output)} has the parameter '{name}', and this server does not have the "
                f"{extension} extension; ask for the output as it is"
            )


def count_rows(inputs: dict[str, np.ndarray[Any, Any]]) -> int:
    """Return how many rows a request has: the first size of its first input, 1 if that has none."""
    first = next(iter(inputs.values())) if inputs else None
    return first.shape[0] if first is not None and first.ndim else 1


def _no_shape(spec: TensorSpec) -> InvalidRequest:
    return InvalidRequest(f"input {quote(spec.name)}: 'shape' must be a list of integers >= 0")
