"""One HTTP/1.1 connection to another server, as little as forwarding needs: whole answers, bounded, no streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import httptools

from penstock_runtime.server.http import Header

# Bytes in which an answer's head must have ended.
MAX_HEAD = 2**16


class Response(NamedTuple):
    """A whole answer; names of headers in lower case, the body with its transfer coding taken off."""

    status: int
    headers: list[Header]
    body: bytes


class BrokenExchange(Exception):  # noqa: N818 - says what there was instead of an answer
    """No whole answer came. `unanswered`: not a byte of it did; `garbled`: what came was no answer at all."""

    def __init__(self, *, unanswered: bool = False, garbled: bool = False) -> None:
        """Keep both."""
        super().__init__()
        self.unanswered = unanswered
        self.garbled = garbled


class Connection(asyncio.Protocol):
    """Carries one request at a time.

    An answer must tell its length, by Content-Length or chunks: one that ends with the connection might be
    half of what it was to be.
    """

    def __init__(self, limit: int, on_lost: Callable[[Connection], None]) -> None:
        """Take bodies of at most `limit` bytes; call `on_lost` once the connection is gone."""
        self._limit = limit
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        # The loop's time.
        self.opened = asyncio.get_running_loop().time()
        self._parser: Any = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Response] | None = None
        self._headers: list[Header] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._received = 0
        self._framed = False
        self._head_ended = False
        self._reusable = True
        self.used = False

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        transport = self._transport
        return self._reusable and self._waiter is None and transport is not None and not transport.is_closing()

    async def exchange(self, parts: Iterable[bytes]) -> Response:
        """Send the request in `parts` and return the answer; raises BrokenExchange.

        When it is cancelled the connection is closed, which tells the other side that nobody waits.
        """
        if not self.reusable or self._transport is None:
            raise BrokenExchange(unanswered=True)
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        self._received = 0
        self._head_ended = False
        self.used = True
        try:
            self._transport.writelines(parts)
            return await waiter
        except BaseException:
            self.close()
            if waiter.done() and not waiter.cancelled():
                # Else asyncio complains where the connection was lost just before we were cancelled.
                waiter.exception()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """Let go of the connection at once."""
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what was waited for."""
        self._reusable = False
        self._transport = None
        self._fail(BrokenExchange(unanswered=not self._received))
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; bytes that nobody asked for, or that are no answer, end the connection."""
        if self._waiter is None or self._waiter.done():
            self.close()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._garbled()
            return
        # Chunks have some bytes more than what is in them; a head or a trailer without end is none.
        if self._received > 2 * self._limit + MAX_HEAD or (self._received > MAX_HEAD and not self._head_ended):
            self._garbled()

    def on_message_begin(self) -> None:
        """Begin an answer."""
        if self._waiter is None or self._waiter.done():
            # A second answer to one request: whose is it?
            self._reusable = False
        self._headers = []
        self._parts = []
        self._size = 0
        self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Refuse an answer whose end could not be told."""
        status = self._parser.get_status_code()
        self._head_ended = status >= 200
        if self._head_ended and not self._framed and status not in (204, 304):
            self._garbled()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._size += len(body)
        if self._size > self._limit:
            self._garbled()
            return
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                self._garbled()
            return
        if status > 599:
            self._garbled()
            return
        self._reusable = self._reusable and self._parser.should_keep_alive()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Response(status, self._headers, b"".join(self._parts)))
        self._headers, self._parts = [], []

    def _garbled(self) -> None:
        self._fail(BrokenExchange(garbled=True))
        self.close()

    def _fail(self, error: BrokenExchange) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
