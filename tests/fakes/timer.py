"""The time of an event loop, under the test's control."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class _Handle:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class FakeTimer:
    """`penstock.shell.queue.Timer`; also callable, as a monotonic clock."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = itertools.count()
        self._calls: list[tuple[float, int, _Handle]] = []

    def __call__(self) -> float:
        return self._now

    def time(self) -> float:
        """Seconds since the start."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], object], /) -> _Handle:
        """Call back when `advance` comes to that time."""
        handle = _Handle(callback)
        heapq.heappush(self._calls, (when, next(self._order), handle))
        return handle

    @property
    def pending(self) -> int:
        """Calls that are still to come."""
        return sum(1 for _, _, handle in self._calls if handle.callback is not None)

    def advance(self, seconds: float) -> None:
        """Let time pass, calling back in order."""
        end = self._now + seconds
        while self._calls and self._calls[0][0] <= end:
            self._now, _, handle = heapq.heappop(self._calls)
            if handle.callback is not None:
                handle.callback()
        self._now = end
