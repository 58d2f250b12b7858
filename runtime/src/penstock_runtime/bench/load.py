"""Load on a server: as many requests as its connections carry, or a steady rate."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from penstock_runtime.bench.connection import Connection
from penstock_runtime.bench.latencies import Latencies

_TICK_SECONDS = 0.1
_RECONNECT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load: `rate` None = each connection sends the next request once it has an answer.

    With a rate, requests begin at even intervals whatever the server does; one that finds no free connection waits,
    and its wait counts. `timeout`: seconds for an answer.
    """

    connections: int
    seconds: float
    rate: float | None
    timeout: float


class Results:
    """What came back. `failed` counts by status, or by what happened to the connection."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.latencies = Latencies()
        self.failed: Counter[str] = Counter()
        self.first_error = b""
        self.seconds = 0.0
        self.unsent = 0


class Load:
    """One measurement. `run` may be called once."""

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext | None, requests: Sequence[bytes], plan: Plan,
        on_second: Callable[[float, Latencies, int], None],
    ) -> None:  # fmt: skip
        """`on_second` is called with the seconds since the start, the second's latencies and all failures."""
        self._address = address
        self._tls = tls
        self._requests = requests
        self._plan = plan
        self._on_second = on_second
        self._results = Results()
        self._recent = Latencies()
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._sent = 0
        self._start = self._end = self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> Results:
        """Return the results; raises OSError if there is no connection at all."""
        self._loop = asyncio.get_running_loop()
        await self._connect()
        await asyncio.gather(*(self._connect_quietly() for _ in range(self._plan.connections - 1)))
        self._start = self._last = perf_counter()
        self._end = self._start + self._plan.seconds
        try:
            self._feed()
            await self._watch()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in self._opening:
                task.cancel()
            for connection in list(self._open):
                connection.abort("")
        self._results.seconds = max(self._last, min(self._end, perf_counter())) - self._start
        if self._plan.rate is not None:
            due = int((self._end - self._start) * self._plan.rate)
            self._results.unsent = max(0, due - self._sent)
        return self._results

    def stop(self) -> None:
        """Send no more: what is under way is still waited for."""
        self._end = min(self._end, perf_counter())

    async def _watch(self) -> None:
        """Return when the time is over and all answers are there, or late."""
        second = self._start + 1
        while True:
            now = perf_counter()
            waiting = [each for each in self._open if each.begun is not None]
            if now >= self._end and not waiting:
                return
            for connection in waiting:
                if now - connection.sent > self._plan.timeout:
                    connection.abort("timeout")
            if now >= second:
                self._on_second(now - self._start, self._recent, self._results.failed.total())
                self._recent = Latencies()
                second += 1
            await asyncio.sleep(min(_TICK_SECONDS, max(0.001, self._end - now)) if now < self._end else 0.005)

    def _feed(self, starved: bool = False) -> None:
        """Send what is due on idle connections, and come again when the next is.

        `starved`: there was no idle one, so what is due has waited for it. Else it was late by our own clock, whose
        ticks are a millisecond, and that is not the server's doing.
        """
        rate = self._plan.rate
        now = perf_counter()
        while self._idle and now < self._end:
            begun = now
            if rate is not None:
                due = self._start + self._sent / rate
                if due > now:
                    self._come_again(due - now)
                    return
                begun = due if starved else now
            connection = self._idle.popleft()
            if connection.usable:
                connection.send(self._requests[self._sent % len(self._requests)], begun)
                self._sent += 1

    def _come_again(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._feed)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        now = self._last = perf_counter()
        begun = connection.begun
        connection.begun = None
        if status == 200 and begun is not None:
            self._results.latencies.add(now - begun)
            self._recent.add(now - begun)
        else:
            self._fail(str(status), body)
        if connection.usable:
            starved = not self._idle
            self._idle.append(connection)
            self._feed(starved)

    def _lost_connection(self, connection: Connection, why: str) -> None:
        self._open.discard(connection)
        if connection.begun is not None:
            self._last = perf_counter()
            connection.begun = None
            self._fail(why or "connection closed")
        if perf_counter() < self._end:
            self._spawn()

    def _fail(self, why: str, body: bytes = b"") -> None:
        self._results.failed[why] += 1
        self._results.first_error = self._results.first_error or body

    def _spawn(self) -> None:
        task = self._loop.create_task(self._reconnect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _reconnect(self) -> None:
        while perf_counter() < self._end and not await self._connect_quietly():  # noqa: ASYNC110 - a server is awaited
            await asyncio.sleep(_RECONNECT_SECONDS)
        self._feed(starved=len(self._idle) == 1)

    async def _connect_quietly(self) -> bool:
        try:
            await self._connect()
        except OSError as error:
            self._fail(f"cannot connect: {(error.strerror or 'no answer').lower()}")
            return False
        return True

    async def _connect(self) -> None:
        host, port = self._address
        name = host if self._tls is not None else None
        async with asyncio.timeout(self._plan.timeout):
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._answered, self._lost_connection),
                host,
                port,
                ssl=self._tls,
                server_hostname=name,
            )
        self._open.add(connection)
        self._idle.append(connection)
