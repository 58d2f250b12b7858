"""One HTTP/1.1 connection, as lean as asyncio allows: requests are ready-made bytes, answers are parsed in C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import httptools


class Answer(NamedTuple):
    """What the server said. `revision` and `prediction_id` are empty where the headers are missing."""

    status: int
    revision: str
    prediction_id: str
    body: bytes


class Connection(asyncio.Protocol):
    """Carries one request at a time; tells its owner about the answer, or that there will be none."""

    def __init__(
        self, on_answer: Callable[[Connection, Answer], None], on_lost: Callable[[Connection, bool], None]
    ) -> None:
        """`on_answer(self, answer)` ends a request; `on_lost(self, was_busy)` ends the connection."""
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._busy = False
        self._revision = ""
        self._prediction_id = ""
        self._body: list[bytes] = []
        self.sent_at = 0.0
        self.cargo: Any = None

    def send(self, request: bytes, at: float, cargo: Any = None) -> None:
        """Send a request. `at` (loop time) and `cargo` are the owner's, kept for when the answer comes."""
        if self._transport is None or self._busy:
            raise RuntimeError("the connection is not free")
        self._busy, self.sent_at, self.cargo = True, at, cargo
        self._revision = self._prediction_id = ""
        self._body.clear()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)

    def abort(self) -> None:
        """Drop the connection at once; `on_lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            if self._parser is None:
                raise httptools.HttpParserError("bytes that nobody asked for")
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        busy, self._busy = self._busy, False
        self._on_lost(self, busy)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        match name.lower():
            case b"penstock-revision":
                self._revision = value.decode("latin-1")
            case b"penstock-prediction-id":
                self._prediction_id = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        answer = Answer(self._parser.get_status_code(), self._revision, self._prediction_id, b"".join(self._body))
        keep = self._parser.should_keep_alive()
        self._busy = False
        self._on_answer(self, answer)
        if not keep and self._transport is not None:
            self._transport.close()

    @property
    def is_free(self) -> bool:
        """Whether a request may be sent now."""
        return self._transport is not None and not self._busy and not self._transport.is_closing()
