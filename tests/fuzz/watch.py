"""What a long run must not do: hold more and more memory or descriptors. And how far it has come."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from pathlib import Path

# Samples of memory in a run.
SAMPLES = 200
MAX_GROWTH_MIB = 8.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SECONDS = 1.0 if sys.stderr.isatty() else 15.0


def rss_mib() -> float:
    """Return the process's resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20


def descriptors() -> int:
    """Return how many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the one that lists is among them either way


class Watch:
    """Samples memory and descriptors as a run goes on, and tells of it on stderr."""

    def __init__(self, total: int) -> None:
        """`total`: the inputs that there will be."""
        self._total = total
        self._begun = self._told = time.monotonic()
        self._memory: list[float] = []
        self._open: list[int] = []

    def at(self, done: int) -> None:
        """Sample if it is time to, and tell."""
        if done * SAMPLES // self._total >= len(self._memory):
            gc.collect()
            self._memory.append(rss_mib())
            self._open.append(descriptors())
        now = time.monotonic()
        if now - self._told >= _SECONDS or done >= self._total:
            self._told = now
            end = "\r" if sys.stderr.isatty() and done < self._total else "\n"
            sys.stderr.write(
                f"penstock: {done:,} of {self._total:,} inputs, {self.rate(done):,.0f}/s, RSS {rss_mib():.0f} MiB{end}"
            )
            sys.stderr.flush()

    def rate(self, done: int) -> float:
        """Return inputs a second."""
        return done / max(1e-9, time.monotonic() - self._begun)

    def growth(self) -> tuple[float, float, int]:
        """Return the median of memory (MiB) from 10 to 20 % of the run and of its last 10 %, and descriptors gained."""
        tenth = max(1, len(self._memory) // 10)
        first = statistics.median(self._memory[tenth : 2 * tenth] or self._memory)
        last = statistics.median(self._memory[-tenth:])
        return first, last, self._open[-1] - self._open[min(tenth, len(self._open) - 1)]
