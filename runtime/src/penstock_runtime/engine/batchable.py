"""Whether requests for a model may share a run: tried out at warm-up, since a schema only claims it.

Some exports have a batch of 1 baked in behind a symbolic dimension, and some models let rows see each other
(a normalisation over the batch, a scale found from all values): their answers would depend on who else asks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from penstock_runtime.engine.batch_schema import why_not_by_schema
from penstock_runtime.engine.rows import NotByRow, join, split
from penstock_runtime.engine.session import Session, Tensor
from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.protocol.schema import ModelSchema, TensorSpec

ROWS = 3
# Sizes for symbolic dimensions other than the first; the first that the model takes is used. Small ones are
# cheap; convolutions and pooling need some room.
_SIZES = (2, 1, 32)
# How widely values spread. One spread can drive a model into a corner where every row gets the same answer.
_SPREADS = (1, 10, 100)
# Kernels for one row and for several add up in different orders; that is all they may differ by.
_TOLERANCE = {2: 1e-2, 4: 1e-4, 8: 1e-9}

# Rows of the run that shows what a row gains by company, and how often it is measured.
_COMPANY = 8
_MEASURED_RUNS = 15
_MEASURED_SECONDS = 0.2
# What takes longer alone is not run on the event loop, so nobody asks what company saves it.
_MEASURED_UP_TO_SECONDS = 1e-3

_Row = dict[str, Tensor]


class Batching(NamedTuple):
    """How many rows may run together, the seconds that it saves a row, and why if they may not.

    `saved` is 0 where it was not measured: where a run takes longer than a millisecond.
    """

    max_rows: int
    saved: float = 0.0
    reason: str | None = None


ALONE = Batching(1)


def try_out(session: Session, max_rows: int) -> Batching:
    """Return how `session` can run rows together, where `max_rows` are asked for. Runs the model."""
    if max_rows == 1:
        return ALONE
    reason = why_not_together(session)
    if reason is not None:
        return Batching(1, reason=reason)
    rows = [_row(session.schema, size, 1, np.random.default_rng(0)) for size in _SIZES]
    for row in rows:
        with suppress(ProtocolError):
            alone = _median_seconds(session, row)
            if alone > _MEASURED_UP_TO_SECONDS:
                break
            count = min(_COMPANY, max_rows)
            return Batching(max_rows, alone - _median_seconds(session, join([row] * count)) / count)
    return Batching(max_rows)


def _median_seconds(session: Session, inputs: _Row) -> float:
    times: list[float] = []
    deadline = time.perf_counter() + _MEASURED_SECONDS
    while len(times) < _MEASURED_RUNS and (not times or time.perf_counter() < deadline):
        start = time.perf_counter()
        _run(session, inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def why_not_together(session: Session) -> str | None:
    """Return None if runs of several rows give each row what it gets alone, else the reason, for people.

    Runs the model on up to 3 x 3 sets of 3 synthetic rows, usually on one.
    """
    reason = why_not_by_schema(session.schema)
    if reason is not None:
        return reason
    generator = np.random.default_rng(0)
    for size in _SIZES:
        for spread in _SPREADS:
            rows = [_row(session.schema, size, spread, generator) for _ in range(ROWS)]
            try:
                alone = [_run(session, row) for row in rows]
            except ProtocolError as error:
                reason = reason or f"synthetic rows could not be run: {error.message}"
                break
            reason = _compare(session, rows, alone)
            if reason is not None or _differ(alone):
                return reason
            reason = "all synthetic rows get the same answer, so it cannot be told whether rows are kept apart"
    return reason


def _row(schema: ModelSchema, size: int, spread: int, generator: np.random.Generator) -> _Row:
    return {spec.name: _values(spec, size, spread, generator) for spec in schema.inputs}


def _values(spec: TensorSpec, size: int, spread: int, generator: np.random.Generator) -> Tensor:
    shape = (1, *(size if dim == -1 else dim for dim in (spec.shape or ())[1:]))
    kind = spec.dtype.kind
    if kind == "f":
        return generator.normal(0.0, spread, shape).astype(spec.dtype)
    # Small numbers, as they may be indexes into something.
    numbers = generator.integers(0, 2 if kind == "b" else 2 + spread, shape)
    if kind == "O":
        return np.array([str(number) for number in numbers.ravel()], np.object_).reshape(shape)
    return numbers.astype(spec.dtype)


def _run(session: Session, inputs: _Row) -> list[Tensor]:
    return session.run([spec.name for spec in session.schema.outputs], inputs)


def _compare(session: Session, rows: Sequence[_Row], alone: Sequence[list[Tensor]]) -> str | None:
    try:
        together = split(_run(session, join(rows)), [1] * len(rows))
    except ProtocolError as error:
        return f"rows of several requests cannot be run together: {error.message}"
    except NotByRow as error:
        return str(error)
    for own, shared in zip(alone, together, strict=True):
        for spec, one, other in zip(session.schema.outputs, own, shared, strict=True):
            if not _close(one, other):
                return f"output '{spec.name}' of a row depends on the rows it is run with"
    return None


def _close(one: Tensor, other: Tensor) -> bool:
    if one.dtype.kind != "f":
        return one.shape == other.shape and bool((one == other).all())
    if one.shape != other.shape:
        return False
    finite = np.abs(one[np.isfinite(one)])
    tolerance = _TOLERANCE[one.dtype.itemsize]
    # Relative to the largest value as well: what cancels out leaves noise of that size.
    return np.allclose(other, one, rtol=tolerance, atol=tolerance * float(finite.max(initial=0.0)), equal_nan=True)


def _differ(alone: Sequence[list[Tensor]]) -> bool:
    first, *others = alone
    return any(not _close(one, another) for other in others for one, another in zip(first, other, strict=True))
