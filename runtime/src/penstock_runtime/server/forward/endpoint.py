"""One address of a target: its idle connections, and whether it is worth trying."""

from __future__ import annotations

import random
from collections import deque

from penstock_runtime.server.forward.http_client import Connection

# Seconds for which an address that failed is not tried: doubled by each further failure, up to the second.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 10.0
# Seconds after which a connection is not used again: so that the pods behind one virtual address get requests
# evenly, each new connection choosing anew.
MAX_AGE = 60.0
# Seconds after which an unused connection is closed: earlier than most servers and proxies do it.
MAX_IDLE = 30.0


class Endpoint:
    """An address (host is numeric) with a circuit breaker. Times are the loop's, in seconds."""

    __slots__ = ("_closed", "_failures", "_idle", "_paused_until", "_pauses", "_probing", "_succeeded", "host", "port")

    def __init__(self, host: str, port: int, *, pauses: bool = True) -> None:
        """Nothing is connected yet. `pauses`: whether it is left alone after a failure."""
        self._pauses = pauses
        self.host = host
        self.port = port
        # With the times at which each was put back.
        self._idle: deque[tuple[Connection, float]] = deque()
        self._failures = 0
        self._paused_until = 0.0
        self._probing = False
        self._succeeded = 0.0
        self._closed = False

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

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

    def take(self) -> Connection | None:
        """Return an idle connection: the one that has been so for longest, so that requests go over all of them."""
        while self._idle:
            connection, _ = self._idle.popleft()
            if connection.reusable:
                return connection
        return None

    def put(self, connection: Connection, now: float) -> None:
        """Take a connection back, to carry another request if it may."""
        if self._closed or not connection.reusable or now - connection.opened >= MAX_AGE:
            connection.close()
        else:
            self._idle.append((connection, now))

    def sweep(self, now: float) -> None:
        """Close connections that are old or have been idle too long, and forget those that are gone."""
        for _ in range(len(self._idle)):
            connection, since = self._idle.popleft()
            if connection.reusable and now - since < MAX_IDLE and now - connection.opened < MAX_AGE:
                self._idle.append((connection, since))
            else:
                connection.close()

    def drop(self) -> bool:
        """Close one idle connection; return whether there was one."""
        if not self._idle:
            return False
        self._idle.popleft()[0].close()
        return True

    def close(self) -> None:
        """Close what is idle now, and what is in use once it is put back."""
        self._closed = True
        while self._idle:
            self._idle.popleft()[0].close()
