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


def differing(ours: Mapping[str, Array], theirs: Mapping[str, Output], setting: Shadowing) -> list[str]:
    """Return the names of our outputs that are not in `theirs`, or not the same within the tolerances."""
    return [
        name for name, array in ours.items()
        if name not in theirs or _differs(array, theirs[name], setting.tolerances.get(name), setting.tolerance)
    ]  # fmt: skip


def _differs(ours: Array, output: Output, named: Tolerance | None, usual: Tolerance) -> bool:
    theirs = output.array
    if output.finite and ours.dtype.kind == "f":
        ours = np.where(np.isfinite(ours), ours, ours.dtype.type("nan"))
    if named is not None and "O" not in (ours.dtype.kind, theirs.dtype.kind):
        # Who names an output means its numbers, also if they are integers.
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return difference(ours, theirs, named or usual) is not None
