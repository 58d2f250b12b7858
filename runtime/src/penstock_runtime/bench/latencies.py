"""Latencies counted in buckets: percentiles of any number of requests in constant memory."""

from __future__ import annotations

import math

# A percentile is off by half of this at most.
_GROWTH = 1.01
_LEAST = 1e-6
_SCALE = 1 / math.log(_GROWTH)
# Up to 1000 s.
_BUCKETS = int(math.log(1e3 / _LEAST) * _SCALE) + 2


class Latencies:
    """Counts seconds from a microsecond to 1000 s in buckets of 1 %; the largest is kept as it is."""

    __slots__ = ("_buckets", "count", "max", "sum")

    def __init__(self) -> None:
        """Start with none."""
        self._buckets = [0] * _BUCKETS
        self.count = 0
        self.sum = self.max = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._buckets[min(int(math.log(seconds / _LEAST) * _SCALE), _BUCKETS - 1) if seconds > _LEAST else 0] += 1
        self.count += 1
        self.sum += seconds
        self.max = max(self.max, seconds)

    def percentile(self, share: float) -> float | None:
        """Return the seconds in which this share of the requests (0 to 1) were answered; None if there were none."""
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= rank:
                return min(_LEAST * math.pow(_GROWTH, index + 0.5), self.max)
        return None
