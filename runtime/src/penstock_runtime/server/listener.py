"""Sockets and uvicorn's HTTP protocol, with a life cycle of our own.

uvicorn's Server takes over signals and shuts down at once on SIGTERM; a drain needs the steps apart.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from time import perf_counter
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from penstock_runtime.server.http import GONE, STARTED, TASK, App, bad_request

# Longer than any common proxy keeps an idle upstream connection (Envoy: 1 h): the side that sends requests
# must be the one that closes, or a request can meet a closing connection.
KEEP_ALIVE_SECONDS = 3900


class ListenError(Exception):
    """The address cannot be listened on."""


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with a request's arrival and its client's departure, and our error for bytes that are no HTTP."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Many requests can become readable at once; those that wait their turn have begun all the same.
        self.scope[STARTED] = perf_counter()  # type: ignore[literal-required]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        task: Any = self.scope.get(TASK) if self.scope is not None else None
        if task is not None and self.cycle is not None and not self.cycle.response_started:
            self.scope[GONE] = True  # type: ignore[literal-required]
            task.cancel()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(bad_request(msg))
        self.transport.close()


class Listener:
    """One port with its app."""

    def __init__(self, app: App, host: str | None, port: int) -> None:
        """Bind at once, so that a taken port is known before a model is loaded; raises ListenError."""
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._config = Config(
            app,
            http=_Protocol, ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
            server_header=False, date_header=False, proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )  # fmt: skip
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self.connect(loop), sock=self._socket, backlog=2048)

    def connect(self, loop: asyncio.AbstractEventLoop) -> HttpToolsProtocol:
        """Return the protocol of a new connection."""
        return _Protocol(self._config, self._state, {}, _loop=loop)

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
