"""Load from one thread, quicker than the standard library's client: whole requests over kept connections."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock_runtime.server.forward.http_client import Connection
from tests.unit.runtime.process import SETOSA, iris_request

BODY = json.dumps(iris_request(SETOSA)).encode()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition` holds; TimeoutError if it does not."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is not always an event
            await asyncio.sleep(0.01)


@dataclass
class Loading:
    """Clients of one server, over either protocol; `answers` counts by revision, `failures` has all others."""

    port: int
    answers: Counter[str] = field(default_factory=Counter, kw_only=True)
    failures: list[str] = field(default_factory=list, kw_only=True)
    slowest: float = field(default=0.0, kw_only=True)
    left: int = field(default=0, kw_only=True)

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Let those under way end, and begin no more."""
        self.left = 0
        await running

    async def reach(self, more: int) -> None:
        """Wait for so many further answers."""
        goal = self.answers.total() + more
        await until(lambda: self.answers.total() >= goal)


@dataclass
class Load(Loading):
    """Clients over HTTP; what is no 200 is a failure."""

    path: str = "/v2/models/m/infer"
    body: bytes = BODY

    async def run(self, count: int, clients: int = 16) -> None:
        """Make `count` requests."""
        self.left += count
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        loop = asyncio.get_running_loop()
        start = self.path.encode(), len(self.body), self.body
        request = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % start
        connection: Connection | None = None
        while self.left > 0:
            self.left -= 1
            begun = loop.time()
            try:
                if connection is None or not connection.reusable:
                    # The server may say with an answer that it was the connection's last.
                    connection = Connection(2**20, lambda _: None)
                    await loop.create_connection(lambda made=connection: made, "127.0.0.1", self.port)  # type: ignore[misc]
                response = await connection.exchange((request,))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed request
                self.failures.append(repr(error))
                return
            self.slowest = max(self.slowest, loop.time() - begun)
            if response.status == 200:
                self.answers[dict(response.headers)[b"penstock-revision"].decode()] += 1
            else:
                self.failures.append(f"{response.status} {response.body!r}")
        if connection is not None:
            connection.close()
