"""Two answers to one request, compared output by output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock_runtime.engine.closeness import Tolerance, difference
from penstock_runtime.protocol.answer import Answer, Output
from penstock_runtime.server.shadow.setting import Shadowing

Array = np.ndarray[Any, Any]


def read_answer(body: bytes, header_length: int | None) -> dict[str, Output]:
    """Return all outputs in an answer, whose first `header_length` bytes are JSON (None: all). Raises ValueError."""
    return Answer(body, header_length).read()


def differing(ours: Mapping[str, Output], theirs: Mapping[str, Output], setting: Shadowing) -> list[str]:
    """Return the names of our outputs that are not in `theirs`, or not the same within the tolerances."""
    return [
        name for name, output in ours.items()
        if name not in theirs or _differs(output, theirs[name], setting.tolerances.get(name), setting.tolerance)
    ]  # fmt: skip


def _differs(ours: Output, theirs: Output, named: Tolerance | None, usual: Tolerance) -> bool:
    one, other = ours.array, theirs.array
    if ours.finite or theirs.finite:
        one, other = _finite(one), _finite(other)
    if named is not None and "O" not in (one.dtype.kind, other.dtype.kind):
        # Who names an output means its numbers, also if they are integers.
        one, other = one.astype(np.float64), other.astype(np.float64)
    return difference(one, other, named or usual) is not None


def _finite(array: Array) -> Array:
    """Return `array` as it would have come as JSON."""
    return np.where(np.isfinite(array), array, array.dtype.type("nan")) if array.dtype.kind == "f" else array
