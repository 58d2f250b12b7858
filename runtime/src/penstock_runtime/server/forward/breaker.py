"""Whether an address is worth trying: after a failure it is left alone for a while, then tried once."""

from __future__ import annotations

import random

# Seconds for which an address that failed is not tried: doubled by each further failure, up to the second.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 10.0


class Breaker:
    """A circuit breaker. Times are the loop's, in seconds."""

    __slots__ = ("_failures", "_paused_until", "_pauses", "_probing", "_succeeded")

    def __init__(self, *, pauses: bool = True) -> None:
        """Nothing is known yet. `pauses`: whether it is left alone after a failure."""
        self._pauses = pauses
        self._failures = 0
        self._paused_until = 0.0
        self._probing = False
        self._succeeded = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last thing known of it is a failure."""
        return self._failures > 0

    def admits(self, now: float) -> bool:
        """Return whether a request may try it: always, but after a failure one at a time and after a pause.

        Who is admitted must call one of `succeed`, `fail` and `leave`.
        """
        if not self._failures or not self._pauses:
            return True
        if self._probing or now < self._paused_until:
            return False
        self._probing = True
        return True

    def succeed(self, now: float) -> bool:
        """Note an answer; return whether the address had been failing."""
        recovered = self._failures > 0
        self._failures = 0
        self._probing = False
        self._succeeded = now
        return recovered

    def fail(self, now: float, begun: float | None = None) -> bool:
        """Note a failure; return whether that is news.

        `begun`: when the request was sent that failed, None if there was not even a connection.
        """
        self._probing = False
        if now < self._paused_until or (begun is not None and self._succeeded > begun):
            # It is known already, as many fail at once when a server dies; or others fared better meanwhile.
            return False
        self._failures += 1
        if not self._pauses:
            return self._failures == 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
        self._paused_until = now + pause * random.uniform(0.75, 1.25)  # noqa: S311
        return self._failures == 1

    def leave(self) -> None:
        """Note that a try ended without telling anything."""
        self._probing = False
