"""The wall clock of decisions: this machine's, corrected to the API server's where they differ.

Hold times start with a time stamp that an operator on another node may have written. The API server's `Date`
is the one clock that all of them see.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable

TOLERANCE = 2.0
"""Seconds of difference that are not corrected: `Date` has whole seconds and answers take time."""


class ServerClock:
    """Unix time; follows the `Date` header of the API server's answers."""

    def __init__(self, local: Callable[[], float] = time.time) -> None:
        self._local = local
        self._offset = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return self._local() + self._offset

    @property
    def skew(self) -> float:
        """Seconds by which the API server is ahead of this machine; 0 within the tolerance."""
        return self._offset

    def observe(self, date: str) -> None:
        """Take note of a `Date` header that has just been received; anything else is ignored."""
        try:
            server = email.utils.parsedate_to_datetime(date).timestamp() + 0.5
        except ValueError:
            return
        difference = server - self._local()
        if abs(difference) <= TOLERANCE:
            self._offset = 0.0
        elif abs(difference - self._offset) > TOLERANCE:
            self._offset = difference
