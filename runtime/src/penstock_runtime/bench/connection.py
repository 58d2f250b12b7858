"""One HTTP/1.1 connection that sends requests one after the other; as little Python a request as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast

import httptools

# Of an answer that is no 200, enough to tell what is wrong.
MAX_ERROR_BYTES = 2000

Answered = Callable[["Connection", int, bytes], None]
Lost = Callable[["Connection", str], None]


class Connection(asyncio.Protocol):
    """Calls `answered` with status and body (of errors only), `lost` once when the connection is gone.

    `begun` is when the request under way began, None while there is none.
    """

    def __init__(self, answered: Answered, lost: Lost) -> None:
        """Nothing is sent until `send` is called."""
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._body = b""
        self._why = "connection closed"
        self.begun: float | None = None
        self.sent = 0.0

    def send(self, request: bytes, begun: float) -> None:
        """Send a request, which counts from `begun` (of `perf_counter`)."""
        self.begun = begun
        self.sent = perf_counter()
        if self._transport is not None:
            self._transport.write(request)

    def abort(self, why: str) -> None:
        """Give the connection up for this reason."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort("answer is no HTTP")

    def on_body(self, body: bytes) -> None:
        """Keep the beginning of an error."""
        if len(self._body) < MAX_ERROR_BYTES and self._parser.get_status_code() != 200:
            self._body += body[:MAX_ERROR_BYTES]

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        if self.begun is None:
            self.abort("answer without a request")
            return
        body, self._body = self._body, b""
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._why = ""
            self._transport.close()
        self._answered(self, status, body)

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell why: the last word that was told, or that the server closed it."""
        self._lost(self, self._why)
