"""A clock that stands still until a test moves it."""

from __future__ import annotations

START = 1_700_000_000.0


class FakeClock:
    """`penstock.ports.Clock` under the test's control."""

    def __init__(self, now: float = START) -> None:
        self._now = now

    def now(self) -> float:
        """Unix seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the new time."""
        self._now += seconds
        return self._now

    def set(self, now: float) -> None:
        """Jump to a time, backwards too."""
        self._now = now
