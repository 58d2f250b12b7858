"""Requests at a fixed rate whether or not answers keep up, as users send them; what came back, as JSON on stdout.

wrk cannot do that: each of its connections waits for its answer, so an overloaded server slows it down instead of
being flooded. `python -m bench.server.open_loop --port N --rate N --seconds N --request FILE`, where the file holds
the whole request, head and body; with `--random` at random times, to the microsecond.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import selectors
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, cast

import httptools
import uvloop

from bench.server.tools import percentile

MOST_CONNECTIONS = 4000
# Opened before the first request, so that opening them is no part of what is measured.
FIRST_CONNECTIONS = 512
# Their first requests, before the clock runs.
WARMED_AT_ONCE, MOST_WARM_SECONDS = 16, 10.0
# `select` takes no file descriptor from 1024 on.
MOST_SELECTED, FIRST_SELECTED = 900, 64
# What is not answered so long after the last request was sent counts as lost.
PATIENCE_SECONDS = 5.0
REFUSALS = (429, 503)


class Client:
    """Sends, and counts what comes back.

    Latencies are seconds to the whole answer: of 200s from the time that the request was due, else from its sending.
    """

    def __init__(
        self, port: int, request: bytes, rate: float, seconds: float, *, connections: int = FIRST_CONNECTIONS,
        random: bool = False,
    ) -> None:  # fmt: skip
        """Send `request` to `port` of the loopback address, at first on so many `connections`; see `due_times`."""
        self._port = port
        self.request = request
        self._due = due_times(rate, seconds, random=random)
        self._seconds = seconds
        self._first = connections
        self._most = MOST_SELECTED if random else MOST_CONNECTIONS
        self._free: list[_Connection] = []
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self.latencies: dict[str, list[float]] = {"ok": [], "refused": [], "other": []}
        self.statuses: Counter[str] = Counter()
        self.lags: list[float] = []
        self.without_retry_after = 0
        self.in_time = 0
        self.waiting = 0
        self._end = 0.0

    async def run(self) -> dict[str, Any]:
        """Send for the whole time; return the report."""
        await asyncio.gather(*(self._open() for _ in range(self._first)))
        await self._warm()
        begun = self.loop.time()
        self._end = begun + self._seconds
        total = len(self._due)
        sent = 0
        while sent < total:
            due = begun + self._due[sent]
            now = self.loop.time()
            if due > now:
                await asyncio.sleep(due - now)
                continue
            self.lags.append(now - due)
            self._send(due)
            sent += 1
        while self.waiting and self.loop.time() < self._end + PATIENCE_SECONDS:  # noqa: ASYNC110 - the last answers, at no cost to them
            await asyncio.sleep(0.01)
        self.statuses["lost"] += self.waiting
        return self._report(total)

    async def _warm(self) -> None:
        """Ask once on each connection, a few at a time, and forget it: TCP begins with small windows."""
        fresh, self._free = self._free, []
        end = self.loop.time() + MOST_WARM_SECONDS
        while fresh and self.loop.time() < end:
            some, fresh = fresh[:WARMED_AT_ONCE], fresh[WARMED_AT_ONCE:]
            self.waiting += sum(connection.send(self.loop.time()) for connection in some)
            while self.waiting and self.loop.time() < end:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.001)
        self._free += fresh
        self.latencies = {kind: [] for kind in self.latencies}
        self.statuses.clear()
        self.without_retry_after = self.in_time = 0

    def _send(self, due: float) -> None:
        while self._free:
            connection = self._free.pop()
            if connection.send(due):
                self.waiting += 1
                return
        if self._connections >= self._most:
            self.statuses["unsent"] += 1
            return
        self.waiting += 1
        task = self.loop.create_task(self._connect(due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, due: float) -> None:
        connection = await self._open()
        if connection is None or not connection.send(due):
            self.waiting -= 1
            self.statuses["refused to connect"] += 1

    async def _open(self) -> _Connection | None:
        self._connections += 1
        try:
            _, connection = await self.loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:
            self._connections -= 1
            return None
        if not self._end:
            self._free.append(connection)
        return connection

    def lost(self, *, busy: bool) -> None:
        """Count a connection that is gone, and the request that will get no answer by that."""
        self._connections -= 1
        if busy:
            self.waiting -= 1
            self.statuses["broken"] += 1

    def answered(self, connection: _Connection, status: int, retry_after: bool) -> None:
        """Count an answer."""
        now = self.loop.time()
        self.waiting -= 1
        self.statuses[str(status)] += 1
        kind = "ok" if status == 200 else "refused" if status in REFUSALS else "other"
        self.latencies[kind].append(now - (connection.due if kind == "ok" else connection.sent))
        if kind == "ok" and now <= self._end:
            self.in_time += 1
        if kind == "refused" and not retry_after:
            self.without_retry_after += 1
        self._free.append(connection)

    def _report(self, total: int) -> dict[str, Any]:
        report: dict[str, Any] = {
            "due": total,
            "seconds": self._seconds,
            "statuses": dict(self.statuses),
            "ok_in_time": self.in_time,
            "without_retry_after": self.without_retry_after,
            "lag_p99": percentile(sorted(self.lags), 0.99) if self.lags else 0.0,
        }
        for kind, times in self.latencies.items():
            ordered = sorted(times)
            report[kind] = {"count": len(ordered)}
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                report[kind][name] = percentile(ordered, share) if ordered else 0.0
        return report


class _Connection(asyncio.Protocol):
    """One request at a time; loop times of when it was due and when it was sent."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._retry_after = False
        self.due = self.sent = 0.0

    def send(self, due: float) -> bool:
        if self._transport is None or self._transport.is_closing():
            return False
        self.due, self.sent = due, self._client.loop.time()
        self._retry_after = False
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._client.request)
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        busy, self._parser = self._parser is not None, None
        self._client.lost(busy=busy)

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = True

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._parser = None
        self._client.answered(self, status, self._retry_after)


def due_times(rate: float, seconds: float, *, random: bool) -> list[float]:
    """Return when each request is due, in seconds from the first: evenly, or as independent users send.

    The random times are the same each time.
    """
    count = int(rate * seconds)
    if not random:
        return [number / rate for number in range(count)]
    draw = Random(0)  # noqa: S311 - no secret
    return sorted(draw.uniform(0.0, seconds) for _ in range(count))


async def _run(args: argparse.Namespace) -> dict[str, Any]:
    request = await asyncio.to_thread(args.request.read_bytes)
    first = FIRST_SELECTED if args.random else FIRST_CONNECTIONS
    return await Client(args.port, request, args.rate, args.seconds, connections=first, random=args.random).run()


def _precise_loop() -> asyncio.AbstractEventLoop:
    # uvloop's and epoll's timers have milliseconds, which is more than many an answer takes.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.server.open_loop", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--request", type=Path, required=True, help="file with a whole HTTP/1.1 request")
    parser.add_argument("--random", action="store_true",
                        help="at random times, as independent users send, to the microsecond; for rates that leave "
                             "this client idle")  # fmt: skip
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=_precise_loop if args.random else uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_run(args))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
