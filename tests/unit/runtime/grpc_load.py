"""Load over gRPC from one event loop: clients that ask one after the other over one connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from grpc import StatusCode

from penstock_runtime.server.grpc.client import Client, Metadata
from tests.unit.runtime.grpc_client import INFER, iris_raw
from tests.unit.runtime.load import until
from tests.unit.runtime.process import SETOSA

MESSAGE = iris_raw(SETOSA).SerializeToString()


@dataclass
class GrpcLoad:
    """Clients of one server; `answers` counts by revision, `failures` has all that was not OK."""

    port: int
    metadata: Metadata = ()
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    left: int = 0

    async def run(self, count: int, clients: int = 16) -> None:
        """Make `count` calls."""
        self.left += count
        client = Client(f"127.0.0.1:{self.port}", 2**20)
        try:
            await asyncio.gather(*(self._ask(client) for _ in range(clients)))
        finally:
            client.close()
            await asyncio.sleep(0.01)

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Let those under way end, and begin no more."""
        self.left = 0
        await running

    async def reach(self, more: int) -> None:
        """Wait for so many further answers."""
        goal = self.answers.total() + more
        await until(lambda: self.answers.total() >= goal)

    async def _ask(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        while self.left > 0:
            self.left -= 1
            begun = loop.time()
            answer = await client.call(INFER, MESSAGE, self.metadata, 60.0)
            self.slowest = max(self.slowest, loop.time() - begun)
            if answer.code is StatusCode.OK:
                self.answers[str(dict(answer.initial)["penstock-revision"])] += 1
            else:
                self.failures.append(f"{answer.code} {answer.details}")
