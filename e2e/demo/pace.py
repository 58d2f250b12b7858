"""How fast the story's traffic goes: as asked for, slower where the machine cannot carry it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE_SECONDS = 5
"""Seconds in a row that must go badly: a model that loads takes a core for one or two."""
SLOWER = 0.7
LEAST_RATE = 50.0
CARRIED = 0.8
"""A second is good when this share of the requests asked for was answered."""


@dataclass
class Pace:
    """The rate in requests a second, lowered step by step where answers cannot keep up."""

    rate: float
    _bad_seconds: int = 0

    def must_slow_down(self, line: Mapping[str, Any]) -> bool:
        """Whether `rate` was just lowered because of the load generator's last lines."""
        answered = sum(counts["ok"] for counts in line["second"]["revisions"].values())
        self._bad_seconds = self._bad_seconds + 1 if answered < CARRIED * self.rate else 0
        if self._bad_seconds < PATIENCE_SECONDS or self.rate <= LEAST_RATE:
            return False
        self._bad_seconds = 0
        self.rate = max(self.rate * SLOWER, LEAST_RATE)
        return True
