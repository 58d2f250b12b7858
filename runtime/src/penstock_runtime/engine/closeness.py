"""Whether two tensors say the same: numbers within a tolerance, everything else exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """How far a number may be from the expected one: `absolute` + `relative` x |expected|."""

    absolute: float = 1e-4
    relative: float = 1e-4


def difference(expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], tolerance: Tolerance) -> str | None:
    """Return how `actual` differs from `expected`, for people; None if it does not. NaN equals NaN."""
    if expected.shape != actual.shape:
        return f"its shape is {list(actual.shape)} instead of {list(expected.shape)}"
    if expected.dtype.kind != "f" or actual.dtype.kind != "f":
        same = expected == actual
        return None if bool(np.all(same)) else _first(~np.asarray(same), expected, actual)
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.isclose(actual, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True)
    return None if bool(close.all()) else _first(~close, expected, actual)


def _first(wrong: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> str:
    at = int(np.flatnonzero(wrong)[0])
    one, other = str(expected.ravel()[at])[:80], str(actual.ravel()[at])[:80]
    return f"{int(wrong.sum())} of {wrong.size} elements differ; element {at} is {other} instead of {one}"
