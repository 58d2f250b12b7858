"""Load over gRPC from one event loop: clients that ask one after the other over one connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from grpc import StatusCode

from penstock_runtime.server.grpc.client import Client, Metadata
from tests.unit.runtime.grpc_client import INFER, iris_raw
from tests.unit.runtime.load import Loading
from tests.unit.runtime.process import SETOSA

MESSAGE = iris_raw(SETOSA).SerializeToString()


@dataclass
class GrpcLoad(Loading):
    """Clients over gRPC; what is not OK is a failure."""

    metadata: Metadata = ()

    async def run(self, count: int, clients: int = 16) -> None:
        """Make `count` calls."""
        self.left += count
        client = Client(f"127.0.0.1:{self.port}", 2**20)
        try:
            await asyncio.gather(*(self._ask(client) for _ in range(clients)))
        finally:
            client.close()
            await asyncio.sleep(0.01)

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
