"""One address of a target: its idle connections, and whether it is worth trying."""

from __future__ import annotations

from collections import deque

from penstock_runtime.server.forward.breaker import Breaker
from penstock_runtime.server.forward.http_client import Connection

# Seconds after which a connection is not used again: so that the pods behind one virtual address get requests
# evenly, each new connection choosing anew.
MAX_AGE = 60.0
# Seconds after which an unused connection is closed: earlier than most servers and proxies do it.
MAX_IDLE = 30.0


class Endpoint(Breaker):
    """An address (host is numeric) with a circuit breaker. Times are the loop's, in seconds."""

    __slots__ = ("_closed", "_idle", "host", "port")

    def __init__(self, host: str, port: int, *, pauses: bool = True) -> None:
        """Nothing is connected yet. `pauses`: whether it is left alone after a failure."""
        super().__init__(pauses=pauses)
        self.host = host
        self.port = port
        # With the times at which each was put back.
        self._idle: deque[tuple[Connection, float]] = deque()
        self._closed = False

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

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
