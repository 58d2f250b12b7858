"""Servers of a few lines that answer as no good server would, and what they were sent."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

Script = Callable[[socket.socket, int], bool]


def answering(answer: bytes, *, close: bool = False) -> Script:
    """Send `answer` to each request, and close the connection after it if told so."""

    def script(connection: socket.socket, _number: int) -> bool:
        connection.sendall(answer)
        return not close

    return script


def response(status: int, body: bytes, *headers: str) -> bytes:
    """Return a whole response of `status`, with `headers` as lines."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", *headers, f"content-length: {len(body)}", ""))
    return head.encode() + body


class Target:
    """A listening socket; `script` is called with each connection's request and its number, and says to go on."""

    def __init__(self, script: Script, host: str = "127.0.0.1", port: int = 0) -> None:
        self._script = script
        self._listening = socket.create_server((host, port))
        self.port: int = self._listening.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self.gone = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                connection.settimeout(60)
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._talk, args=(connection,)))
                self._threads[-1].start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            number = 0
            while (request := _read_request(connection)) is not None:
                self.requests.append(request)
                number += 1
                if not self._script(connection, number):
                    return
        self.gone.set()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)


def _read_request(connection: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    wanted = int(length[1]) if length else 0
    while len(body) < wanted:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
