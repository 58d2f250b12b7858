"""Requests as rows: how many there are, which can lie in one array, joined and split again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from penstock_runtime.engine.session import Tensor

# A part of at most these bytes is copied out of the joint array, in less than 1 us, so that it does not keep
# the whole of it. Of a larger part there is a view: a copy would double the memory that the run took, and the
# joint array lives only until the last of its requests is encoded.
COPY_BYTES = 64 * 2**10


class NotByRow(Exception):  # noqa: N818 - what the model is
    """The model's outputs do not have one row for each row of its inputs."""


def count_rows(inputs: Mapping[str, Tensor]) -> int:
    """Return the first dimension of the first input; 1 for a scalar or no input."""
    for array in inputs.values():
        return int(array.shape[0]) if array.ndim else 1
    return 1


def count_bytes(inputs: Mapping[str, Tensor]) -> int:
    """Return the bytes of all arrays; of strings only the references are counted."""
    return sum([array.nbytes for array in inputs.values()])


def group_of(outputs: Sequence[str], inputs: Mapping[str, Tensor], answerer: Hashable = None) -> Hashable | None:
    """Return what requests must have in common to be one run, or None for one that must run alone.

    That is who answers them, the outputs asked for, in their order, and of each input the datatype and the shape but
    for the first dimension. Alone run requests without rows, and those whose inputs differ in how many they have.
    """
    rows = count_rows(inputs)
    if not rows or any(not array.ndim or array.shape[0] != rows for array in inputs.values()):
        return None
    common = [(name, array.dtype.num, array.shape[1:]) for name, array in inputs.items()]
    return (answerer, tuple(outputs), common[0] if len(common) == 1 else frozenset(common)) if common else None


def join(requests: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the rows of all `requests`, which are of one group, in their order."""
    return {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}


def check_rows(outputs: Sequence[Tensor], total: int) -> None:
    """Raise NotByRow unless every output has `total` rows."""
    for array in outputs:
        if not array.ndim or array.shape[0] != total:
            raise NotByRow(f"an output has the shape {list(array.shape)} for {total} rows")


def split(outputs: Sequence[Tensor], counts: Sequence[int]) -> list[list[Tensor]]:
    """Return for each of `counts` its rows of every output; raises NotByRow if they are not as many."""
    check_rows(outputs, sum(counts))
    parts: list[list[Tensor]] = []
    start = 0
    for count in counts:
        parts.append([_part(array, start, start + count) for array in outputs])
        start += count
    return parts


def _part(array: Tensor, start: int, end: int) -> Tensor:
    part: Tensor = array[start:end]
    return part.copy() if part.nbytes <= COPY_BYTES else part
