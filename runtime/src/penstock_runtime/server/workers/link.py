"""What a worker and its supervisor tell each other, over a pair of sockets.

First the supervisor sends a key of 32 bytes, which signs prediction ids where no key is mounted: the workers must
know each other's. A worker says that its models are loaded, and is told when all workers' are. When either end
is gone, the other one ends too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from typing import NamedTuple

KEY_BYTES = 32
_LOADED = b"L"
_ALL_LOADED = b"A"


class Inherited(NamedTuple):
    """The sockets that a worker gets from its supervisor, by their file descriptors."""

    data: int
    admin: int
    metrics: int
    link: int


class Link:
    """The worker's end."""

    def __init__(self, descriptor: int) -> None:
        """Wait for the key."""
        self._socket = socket.socket(fileno=descriptor)
        self.key = self._socket.recv(KEY_BYTES, socket.MSG_WAITALL)
        self._socket.setblocking(False)

    def say_loaded(self) -> None:
        """Say that this worker's models are loaded."""
        with suppress(OSError):
            self._socket.send(_LOADED)

    async def wait_for_all(self) -> None:
        """Say so, and wait until those of all are."""
        self.say_loaded()
        with suppress(OSError):
            await asyncio.get_running_loop().sock_recv(self._socket, len(_ALL_LOADED))

    async def follow(self) -> None:
        """Wait until the supervisor is gone, and have this process end as if told by it."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while await loop.sock_recv(self._socket, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class Leash:
    """The supervisor's end for one worker."""

    def __init__(self, key: bytes) -> None:
        """Send `key`."""
        self._socket, theirs = socket.socketpair()
        self._socket.sendall(key)
        self._socket.setblocking(False)
        self.theirs = theirs

    async def wait_loaded(self) -> bool:
        """Wait until the worker's models are loaded; False if it ended before."""
        try:
            return bool(await asyncio.get_running_loop().sock_recv(self._socket, len(_LOADED)))
        except OSError:
            return False

    async def say_all_loaded(self) -> None:
        """Tell the worker that all workers' models are loaded."""
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, _ALL_LOADED)

    def close(self) -> None:
        """Let go of the socket, which ends the worker."""
        self._socket.close()
