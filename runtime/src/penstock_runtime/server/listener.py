"""Sockets and uvicorn's HTTP protocol, with a life cycle of our own.

uvicorn's Server takes over signals and shuts down at once on SIGTERM; a drain needs the steps apart.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from uvicorn.config import Config
from uvicorn.server import ServerState

from penstock_runtime.server.connection import Connection
from penstock_runtime.server.direct import Direct
from penstock_runtime.server.http import App

# Longer than any common proxy keeps an idle upstream connection (Envoy: 1 h): the side that sends requests
# must be the one that closes, or a request can meet a closing connection.
KEEP_ALIVE_SECONDS = 3900


class ListenError(Exception):
    """The address cannot be listened on."""


class Listener:
    """One port with its app."""

    def __init__(self, app: App, host: str | None, port: int, direct: Direct | None = None) -> None:
        """Bind at once, so that a taken port is known before a model is loaded; raises ListenError.

        `direct`: a short way for requests that need no ASGI.
        """
        self._direct = direct
        self._socket = _bind(host, port)
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
        self._server = await loop.create_server(lambda: self._connect(loop), sock=self._socket, backlog=2048)

    def _connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
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
                await _cancel(list(self._state.tasks))
                return False
            await asyncio.sleep(0.01)
        return True

    def close(self) -> None:
        """Let go of the port, and of connections that are left."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for connection in list(self._state.connections):
            connection.transport.abort()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)


def probe(host: str | None, port: int) -> None:
    """Raise ListenError if the address cannot be listened on, by whoever means to do that without telling why."""
    _bind(host, port).close()


def _bind(host: str | None, port: int) -> socket.socket:
    if host is None:
        try:
            return _bind_family(socket.AF_INET6, "::", port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ListenError(_taken(port)) from None
            host = "0.0.0.0"  # noqa: S104 - a server's port is for all, policy is the network's
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _bind_family(family, host, port)
    except OSError as error:
        reason = (
            _taken(port)
            if error.errno == errno.EADDRINUSE
            else f"cannot listen on {host} port {port}: {error.strerror}"
        )
        raise ListenError(reason) from None


def _bind_family(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _taken(port: int) -> str:
    return f"port {port} is taken by another process; choose another one"
