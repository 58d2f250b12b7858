"""The server in this process: its applications as uvicorn calls them, and uvicorn's HTTP parser without a socket."""

from __future__ import annotations

import asyncio
import logging
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock_runtime.server.admin_app import AdminApp
from penstock_runtime.server.app import DataApp
from penstock_runtime.server.connection import Connection
from penstock_runtime.server.direct import Direct
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.http import App
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.settings import add_arguments, read_settings
from penstock_runtime.server.sockets import bind
from tests.fuzz.requests import Request
from tests.fuzz.verdict import Wrong

# Small, so that bodies beyond it cost little.
MAX_BODY_BYTES = 2**20
SECONDS = 60.0

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class Complaints(logging.Handler):
    """Keeps what a server would log as a warning or worse: nobody should have to read any of it."""

    def __init__(self) -> None:
        """Listen to all loggers, by the levels that a server sets."""
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logging.getLogger().handlers = [self]
        logging.getLogger().setLevel(logging.ERROR)
        logging.getLogger("penstock_runtime").setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines.append(f"{record.getMessage()} {getattr(record, 'penstock_fields', '')} {record.exc_info or ''}")


class InProcess:
    """A data port and an admin port over the models of a repository."""

    def __init__(self, root: Path) -> None:
        """Prepare the models in `root`; `load` loads them."""
        parser = ArgumentParser()
        add_arguments(parser)
        settings = read_settings(parser.parse_args(["--model-repository", str(root), "--versions", "all"]), {})
        self.repository = Repository(settings, Keys(root / "no keys"), settings.feedback, "none")
        self.apps: Mapping[str, App] = {
            "data": DataApp(self.repository, MAX_BODY_BYTES), "admin": AdminApp(self.repository, model_control=False),
        }  # fmt: skip
        direct = {"data": Direct(self.repository, MAX_BODY_BYTES)}
        self._listeners = {
            name: Listener(app, bind("127.0.0.1", 0), direct.get(name)) for name, app in self.apps.items()
        }

    async def load(self) -> None:
        """Load the models."""
        await self.repository.load_all()

    def close(self) -> None:
        """Stop what runs."""
        for listener in self._listeners.values():
            listener.close()
        self.repository.close()

    async def call(self, request: Request) -> Answer:
        """Return what the application answers; raises whatever it raises."""
        incoming = [{"type": "http.request", "body": request.body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if incoming:
                return incoming.pop()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": request.method, "path": request.path, "headers": list(request.headers)}
        await self.apps[request.port](scope, receive, send)
        start, body = sent
        return start["status"], start["headers"], body["body"]

    async def feed(self, port: str, chunks: list[bytes]) -> bytes:
        """Return what a connection answers to `chunks` of bytes, until it closes or waits for more of them.

        Those that are fed in one turn of the event loop are read in one turn, as by the real server.
        """
        listener = self._listeners[port]
        protocol = listener.connect(asyncio.get_running_loop())
        transport = _Transport()
        protocol.connection_made(transport)
        before = set(listener._state.tasks)
        for chunk in chunks:
            if transport.is_closing():
                break
            protocol.data_received(chunk)
        tasks = listener._state.tasks - before
        await _until(lambda: transport.is_closing() or not _answering(protocol))
        protocol.connection_lost(None)
        await _until(lambda: not tasks & listener._state.tasks)
        if protocol in listener._state.connections:
            raise Wrong("a closed connection is still there")
        return bytes(transport.written)


def _answering(protocol: Connection) -> bool:
    cycle = protocol.cycle
    return cycle is not None and not cycle.response_complete and not cycle.more_body


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise Wrong(f"no answer within {SECONDS:g} s")
        await asyncio.sleep(0)


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading
