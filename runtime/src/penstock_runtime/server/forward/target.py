"""Another server, by all its addresses: resolved again and again, balanced, and left alone while it is dead."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from penstock_runtime.log import event
from penstock_runtime.server.forward.endpoint import Endpoint
from penstock_runtime.server.forward.http_client import BrokenExchange, Connection, Response
from penstock_runtime.server.forward.setting import Address

logger = logging.getLogger(__name__)

# Seconds. Within a cluster a connection takes a millisecond; who waits longer is better served here.
CONNECT_SECONDS = 0.25
# The same where there is nobody else.
ONLY_CONNECT_SECONDS = 2.0
# What follows when those are over, for what has come while this event loop was busy.
LATE_SECONDS = 0.05
# Seconds between two resolutions of a name, and the most that one may take.
RESOLVE_SECONDS = 5.0
SWEEP_SECONDS = 10.0
MAX_CONNECTIONS = 256
MAX_ADDRESSES = 256
# Addresses tried for one request, and a second connection where the first had been closed unnoticed.
MAX_TRIES = 3


class NoAnswer(Exception):  # noqa: N818
    """The target gave no answer, or none that is of use. `reason`: such as unreachable, busy, dropped or garbled."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class Target:
    """Where requests are sent. All calls come from the event loop it was made on."""

    def __init__(
        self, address: Address, max_response: int, max_connections: int = MAX_CONNECTIONS, *, only: bool = False
    ) -> None:
        """Start resolving; at most `max_connections` are open, answers have at most `max_response` bytes.

        `only`: nobody else can answer its requests. So each is tried, whatever became of those before, a connection
        has longer, and failures are not logged here.
        """
        self._only = only
        self._connect_seconds = ONLY_CONNECT_SECONDS if only else CONNECT_SECONDS
        self.address = address
        # What the header Host says.
        self.authority = address.authority.encode()
        self._max_response = max_response
        self._max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._endpoints: list[Endpoint] = []
        self._turn = 0
        self._connections: set[Connection] = set()
        self._resolving: asyncio.Task[None] | None = None
        self._resolve_at = 0.0
        self._unresolved = False
        if address.is_literal:
            self._endpoints = [Endpoint(address.host, address.port, pauses=not only)]
            self._resolve_at = float("inf")
        self._resolve_if_due()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def describe(self) -> dict[str, Any]:
        """Return what can be seen of it: addresses, those that fail, open connections, those that are idle."""
        return {
            "addresses": len(self._endpoints),
            "failing": sum(endpoint.failing for endpoint in self._endpoints),
            "connections": len(self._connections),
            "idle": sum(endpoint.idle for endpoint in self._endpoints),
        }

    async def exchange(self, parts: Sequence[bytes], seconds: float) -> Response:
        """Send a request and return the answer; raises NoAnswer, or TimeoutError `seconds` after the start.

        Another address is tried where there was no connection, and another connection where an idle one turned
        out to be closed. A request that met its end on a live one is not sent again: it may be what killed
        the server.
        """
        deadline = self._loop.time() + seconds
        stale = False
        for _ in range(MAX_TRIES):
            endpoint = await self._choose()
            connection = (None if stale else endpoint.take()) or await self._connect(endpoint)
            if connection is None:
                continue
            response = await self._ask(
                endpoint, connection, parts, deadline, may_be_stale=connection.used and not stale
            )
            if response is not None:
                endpoint.put(connection, self._loop.time())
                return response
            stale = True
        raise NoAnswer("unreachable")

    async def _ask(
        self, endpoint: Endpoint, connection: Connection, parts: Sequence[bytes], deadline: float, *, may_be_stale: bool
    ) -> Response | None:
        """Return the answer, None if the connection had been closed before; raises NoAnswer or TimeoutError."""
        begun = self._loop.time()
        try:
            async with asyncio.timeout_at(deadline):
                response = await connection.exchange(parts)
        except BrokenExchange as broken:
            if may_be_stale and broken.unanswered:
                endpoint.leave()
                return None
            reason = "garbled" if broken.garbled else "dropped"
            self._failed(endpoint, reason, begun)
            raise NoAnswer(reason) from None
        except TimeoutError:
            self._failed(endpoint, "no answer in time", begun)
            raise
        except BaseException:
            endpoint.leave()
            raise
        if endpoint.succeed(self._loop.time()) and not self._only:
            event(logger, "the target answers again", target=str(self.address), address=endpoint.host)
        return response

    async def _choose(self) -> Endpoint:
        """Return the next address that is worth trying; raises NoAnswer."""
        self._resolve_if_due()
        if not self._endpoints and self._resolving is not None and not self._unresolved:
            await asyncio.wait((self._resolving,), timeout=self._connect_seconds)
            self._unresolved = not self._endpoints
        now = self._loop.time()
        for _ in self._endpoints:
            self._turn = (self._turn + 1) % len(self._endpoints)
            if self._endpoints[self._turn].admits(now):
                return self._endpoints[self._turn]
        raise NoAnswer("unreachable")

    async def _connect(self, endpoint: Endpoint) -> Connection | None:
        """Return a new connection, None if there is none to be had; raises NoAnswer if too many are open."""
        if len(self._connections) >= self._max_connections and not any(other.drop() for other in self._endpoints):
            endpoint.leave()
            raise NoAnswer("busy")
        connection = Connection(self._max_response, self._connections.discard)
        self._connections.add(connection)
        try:
            async with self._in_time():
                await self._loop.create_connection(lambda: connection, endpoint.host, endpoint.port)
        except (OSError, TimeoutError) as error:
            self._connections.discard(connection)
            self._failed(endpoint, "no connection in time" if isinstance(error, TimeoutError) else "refused")
            return None
        except BaseException:
            self._connections.discard(connection)
            endpoint.leave()
            raise
        return connection

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Raise TimeoutError where a connection takes too long, but not where only this event loop was late.

        A loop that comes back late meets its timers before its sockets: the last span begins when it is back.
        """
        async with asyncio.timeout(None) as limit:
            late = self._loop.call_later(
                self._connect_seconds, lambda: limit.reschedule(self._loop.time() + LATE_SECONDS)
            )
            try:
                yield
            finally:
                late.cancel()

    def _failed(self, endpoint: Endpoint, reason: str, begun: float | None = None) -> None:
        if endpoint.fail(self._loop.time(), begun) and not self._only:
            event(logger, "the target gives no answer; its requests are answered here", level=logging.WARNING,
                  target=str(self.address), address=endpoint.host, reason=reason)  # fmt: skip

    def _resolve_if_due(self) -> None:
        now = self._loop.time()
        if now >= self._resolve_at and self._resolving is None:
            self._resolve_at = now + RESOLVE_SECONDS
            self._resolving = self._loop.create_task(self._resolve())

    async def _resolve(self) -> None:
        host, port = self.address.host, self.address.port
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            if not self._unresolved:
                event(logger, "the target's name cannot be resolved", level=logging.WARNING,
                      target=str(self.address), error=str(error) or "no answer in time")  # fmt: skip
            self._unresolved = True
            return
        finally:
            self._resolving = None
        self._unresolved = False
        known = {endpoint.host: endpoint for endpoint in self._endpoints}
        hosts = dict.fromkeys(str(info[4][0]) for info in found[:MAX_ADDRESSES])
        self._endpoints = [
            known.pop(each) if each in known else Endpoint(each, port, pauses=not self._only) for each in hosts
        ]
        for gone in known.values():
            gone.close()

    def _sweep(self) -> None:
        now = self._loop.time()
        for endpoint in self._endpoints:
            endpoint.sweep(now)
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Close what is idle; what is in use ends as it would have, and is then closed."""
        self._sweeper.cancel()
        self._resolve_at = float("inf")
        if self._resolving is not None:
            self._resolving.cancel()
        for endpoint in self._endpoints:
            endpoint.close()

    def abort(self) -> None:
        """Close everything at once."""
        self.close()
        for connection in list(self._connections):
            connection.close()
