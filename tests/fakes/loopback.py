"""A web server on loopback that answers as a test tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Loopback:
    """Requests as they came, answered by `answer`."""

    answer: Answer
    host: str = "127.0.0.1"
    port: int = 0
    requests: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)
    """Method, path with query, body, headers."""

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep the request and answer."""
        body = await request.read()
        self.requests.append((request.method, request.path_qs, body, dict(request.headers)))
        return await self.answer(request)


@asynccontextmanager
async def loopback(answer: Answer) -> AsyncIterator[Loopback]:
    """Serve until the block ends."""
    server = Loopback(answer)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, server.host, 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
