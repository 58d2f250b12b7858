"""The open loop: requests leave at their own times, whether or not the answers keep up."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from e2e.load.connection import Answer, Connection
from e2e.load.feedback import LabelSender
from e2e.load.rows import Endpoint, Row
from e2e.load.tally import Tally

IDLE_SECONDS = 20.0
"""A free connection older than this is closed by us, before the server closes it under a request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be under way. A request waits for a connection at most as long as for its answer."""

    connections: int = 64
    waiting: int = 2000
    answer_seconds: float = 10.0


class Generator:
    """Sends rows in random order at Poisson times, `rate` a second, and counts the answers in `tally`."""

    def __init__(
        self,
        endpoint: Endpoint,
        rows: Sequence[Row],
        tally: Tally,
        *,
        labels: LabelSender | None = None,
        limits: Limits = Limits(),
        seed: int = 0,
    ) -> None:
        """`labels` gets the true label of every prediction; without it none are sent."""
        self._endpoint = endpoint
        self._rows = rows
        self._tally = tally
        self._labels = labels
        self._limits = limits
        self._random = random.Random(seed)
        self._free: list[Connection] = []
        self._busy: set[Connection] = set()
        self._live: set[Connection] = set()
        self._opening = 0
        self._waiting: deque[tuple[float, Row]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self.rate = 0.0

    def set_rate(self, rate: float) -> None:
        """Send `rate` requests a second from now on; 0 pauses."""
        self.rate = rate
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if rate > 0:
            self._next_at = self._loop.time() + self._random.expovariate(rate)
            self._timer = self._loop.call_at(self._next_at, self._fire)

    def _fire(self) -> None:
        now = self._loop.time()
        while self._next_at <= now:
            self._tally.sent += 1
            self._send(self._next_at, self._random.choice(self._rows))
            self._next_at += self._random.expovariate(self.rate)
        self._timer = self._loop.call_at(self._next_at, self._fire)

    def _send(self, at: float, row: Row) -> None:
        while self._free:
            connection = self._free.pop()
            if connection.is_free:
                self._busy.add(connection)
                connection.send(row.request, at, row)
                return
        if len(self._waiting) >= self._limits.waiting:
            self._fail("unsent", "", f"{self._limits.waiting} requests wait for a connection already")
            return
        self._waiting.append((at, row))
        self._open_one_more()

    def _open_one_more(self) -> None:
        if len(self._live) + self._opening >= self._limits.connections:
            return
        self._opening += 1
        task = self._loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        connection = Connection(self._answered, self._lost)
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                await self._loop.create_connection(lambda: connection, self._endpoint.address, self._endpoint.port)
        except (OSError, TimeoutError) as error:
            self._opening -= 1
            if self._waiting:
                self._waiting.popleft()
                self._fail("refused", "", f"no connection: {error!r}")
            return
        self._opening -= 1
        connection.sent_at = self._loop.time()  # idle from now on, not since the loop began
        self._live.add(connection)
        self._release(connection)

    def _release(self, connection: Connection) -> None:
        if self._waiting and connection.is_free:
            at, row = self._waiting.popleft()
            self._busy.add(connection)
            connection.send(row.request, at, row)
        else:
            self._free.append(connection)

    def _answered(self, connection: Connection, answer: Answer) -> None:
        self._busy.discard(connection)
        now = self._loop.time()
        row: Row = connection.cargo
        if 200 <= answer.status < 300:
            right = _predicted(answer.body) == row.label
            self._tally.answered(answer.revision, now - connection.sent_at, right=right)
            if self._labels is not None and answer.prediction_id:
                self._labels.add(answer.prediction_id, row.label, now)
        else:
            text = answer.body[:300].decode(errors="replace")
            self._fail(str(answer.status), answer.revision, text)
        connection.sent_at = now
        # Not within the parser's callback: the connection decides first whether it stays open.
        self._loop.call_soon(self._release, connection)

    def _lost(self, connection: Connection, busy: bool) -> None:
        self._busy.discard(connection)
        self._live.discard(connection)
        if busy:
            late = self._loop.time() - connection.sent_at >= self._limits.answer_seconds
            kind = "timeout" if late else "reset"
            self._fail(kind, "", f"no answer within {self._loop.time() - connection.sent_at:.3f} s")
        if self._waiting:
            self._open_one_more()

    def _fail(self, kind: str, revision: str, detail: str) -> None:
        self._tally.failed(kind, revision, time.time(), detail)

    def sweep(self) -> None:
        """End what takes too long and what has idled too long; call it about once a second."""
        now = self._loop.time()
        for connection in [c for c in self._busy if now - c.sent_at > self._limits.answer_seconds]:
            connection.abort()
        while self._waiting and now - self._waiting[0][0] > self._limits.answer_seconds:
            self._waiting.popleft()
            self._fail("timeout", "", "no connection became free")
        idle = [c for c in self._free if not c.is_free or now - c.sent_at > IDLE_SECONDS]
        for connection in idle:
            self._free.remove(connection)
            connection.abort()

    async def close(self) -> None:
        """Stop sending, wait for the answers that are under way, close the connections."""
        self.set_rate(0)
        give_up = self._loop.time() + self._limits.answer_seconds
        while (self._busy or self._waiting) and self._loop.time() < give_up:
            await asyncio.sleep(0.02)
            self.sweep()
        for task in list(self._tasks):
            task.cancel()
        while self._waiting:
            self._waiting.popleft()
            self._fail("timeout", "", "no connection became free before the end")
        for connection in list(self._live):
            connection.abort()
        while self._busy:  # noqa: ASYNC110 - the loop tells of their end a little later, and it must be counted
            await asyncio.sleep(0)


def _predicted(body: bytes) -> int | None:
    """The label in an Open Inference Protocol answer; None where it holds none."""
    try:
        label = orjson.loads(body)["outputs"][0]["data"][0]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return label if isinstance(label, int) else None
