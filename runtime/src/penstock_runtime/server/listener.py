"""Sockets and uvicorn's HTTP protocol, with a life cycle of our own.

uvicorn's Server takes over signals and shuts down at once on SIGTERM; a drain needs the steps apart.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from penstock_runtime.server.connection import Connection
from penstock_runtime.server.http import App

if TYPE_CHECKING:
    from penstock_runtime.server.direct import Direct

# Longer than any common proxy keeps an idle upstream connection (Envoy: 1 h): the side that sends requests
# must be the one that closes, or a request can meet a closing connection.
KEEP_ALIVE_SECONDS = 3900
# A client may take its time for a handshake, and none for saying goodbye: idle ones often do not at all.
HANDSHAKE_SECONDS = 30.0
GOODBYE_SECONDS = 1.0
# For telling those that are not finished in time.
GIVING_UP_SECONDS = 1.0


class Listener:
    """One port with its app."""

    def __init__(
        self, app: App, bound: socket.socket, direct: Direct | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve `app` at the socket `bound`; `direct`: a short way for requests that need no ASGI."""
        self._direct = direct
        self._tls: dict[str, Any] = {} if tls is None else {
            "ssl": tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": GOODBYE_SECONDS,
        }  # fmt: skip
        self._socket = bound
        self.port: int = self._socket.getsockname()[1]
        self._config = Config(
            app,
            http=Connection, ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
            server_header=False, date_header=False, proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )  # fmt: skip
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: self.connect(loop), sock=self._socket, backlog=2048, **self._tls
        )

    def connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        """Return the protocol of a new connection."""
        connection = Connection(self._config, self._state, {}, _loop=loop)
        connection.direct = self._direct
        return connection

    async def stop(self, deadline: float) -> bool:
        """Accept no more, close idle connections, finish requests until `deadline` (loop time).

        Returns whether all were finished; the rest is cancelled, which the app answers with 503.
        """
        loop = asyncio.get_running_loop()
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        while self._state.tasks or self._state.connections:
            if loop.time() >= deadline:
                await self._give_up()
                return False
            await asyncio.sleep(0.01)
        return True

    async def _give_up(self) -> None:
        for connection in list(self._state.connections):
            cast("Connection", connection).give_up()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVING_UP_SECONDS):
                # What is on its way is sent, and its connection closed then.
                while any(task in self._state.tasks for task in tasks) or self._state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    def close(self) -> None:
        """Let go of the port, and of connections that are left."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
