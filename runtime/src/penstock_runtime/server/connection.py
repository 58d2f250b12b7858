"""uvicorn's HTTP protocol, with what it lacks for a model server.

A request's arrival and its client's departure, our error for bytes that are no HTTP, and a short way for inference
requests that come whole.
"""

from __future__ import annotations

import asyncio
import socket
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock_runtime.server.forward.message import SHADOW
from penstock_runtime.server.http import GONE, ROUTE, STARTED, TASK, bad_request

if TYPE_CHECKING:
    from penstock_runtime.server.direct import Direct
    from penstock_runtime.server.forward.relay import Route
    from penstock_runtime.server.repository.model import Model
    from penstock_runtime.server.shadow.shadower import Copy


class _Event:
    """Stands for an asyncio.Event that nobody waits for."""

    def set(self) -> None:
        """Do nothing."""


_EVENT = _Event()
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
# Between looks whether a client that sends no more is still there.
_LOOK_SECONDS = 0.02
# Bodies that have to be taken apart first, and requests that are answered in a way of their own.
_UNUSUAL = frozenset((b"content-encoding", b"transfer-encoding", SHADOW))


class _Exchange:
    """A request on the short way. uvicorn's protocol takes it for one of its cycles."""

    __slots__ = (
        "_connection", "copy", "disconnected", "headers", "keep_alive", "parts", "response_complete", "start", "task",
        "url",
    )  # fmt: skip
    message_event = _EVENT

    def __init__(self, connection: Connection, start: float, url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self._connection = connection
        self.start = start
        self.url = url
        self.copy: Copy | None = None
        self.headers = dict(headers)
        self.parts: list[bytes] = []
        self.task: asyncio.Task[None] | None = None
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False

    @property
    def response_started(self) -> bool:
        """Whether the answer is on its way: it goes as a whole."""
        return self.response_complete

    def send(self, answer: bytes, close: bool) -> None:
        """Send the whole answer, and close the connection with it if asked to, or if it is not to be kept."""
        self.response_complete = True
        if self.disconnected:
            return
        connection = self._connection
        connection.transport.write(answer)
        if close or not self.keep_alive:
            connection.transport.close()
        elif connection.pipeline:
            connection.on_response_complete()
        else:
            connection.timeout_keep_alive_task = connection.loop.call_later(
                connection.timeout_keep_alive, connection.timeout_keep_alive_handler
            )


class Connection(HttpToolsProtocol):
    """One connection of a client. `direct` is set where there is a short way."""

    direct: Direct | None = None
    _began = 0.0
    _exchange: _Exchange | None = None
    # Whether, and where to, the request is forwarded.
    _decided = False
    _route: Route | None = None
    # Set while a request of the short way is read.
    _model: Model | None = None

    def on_message_begin(self) -> None:
        """Begin a request: its time counts from here, for many can become readable at once."""
        self._began = perf_counter()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._decided = False

    def on_headers_complete(self) -> None:
        """Choose the way."""
        self._model = self._find_model()
        if self._model is None:
            self._begin_cycle()
        else:
            self._exchange = exchange = _Exchange(self, self._began, self.url, self.headers)
            direct = self.direct
            unusual = not _UNUSUAL.isdisjoint(exchange.headers)
            if unusual or direct is None or (direct.allows is not None and not direct.allows(exchange.headers)):
                self._leave_short_way()
            elif direct.forwards:
                self._decided = True
                self._route = direct.choose(self._model, self.headers)
                if self._route is not None:
                    self._leave_short_way()

    def _find_model(self) -> Model | None:
        parser = self.parser
        free = self.cycle is None or self.cycle.response_complete
        if self.direct is None or not free or self.pipeline or self.flow.write_paused or self.expect_100_continue:
            return None
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
            return None
        return self.direct.model_at(self.url)

    def _begin_cycle(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        self.scope[STARTED] = self._began  # type: ignore[literal-required]
        if self._decided:
            # Whether it is forwarded is asked once, or the share would not be exact.
            self.scope[ROUTE] = self._route  # type: ignore[literal-required]
        super().on_headers_complete()

    def _leave_short_way(self) -> None:
        """Go by ASGI after all: what has not come in one read may be large, slow, or never come."""
        exchange, self._model = self._exchange, None
        self._begin_cycle()
        for part in exchange.parts if exchange is not None else ():
            super().on_body(part)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade:
            # Nothing that we would upgrade to: such a request is answered as it is.
            return
        if self._model is not None and not self.transport.is_closing():
            self._leave_short_way()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._model is not None and self._exchange is not None:
            self._exchange.parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer what has come whole."""
        model, exchange = self._model, self._exchange
        if model is None or exchange is None or self.direct is None:
            super().on_message_complete()
            return
        self._model = None
        exchange.keep_alive = self.parser.should_keep_alive()
        self.cycle = exchange  # type: ignore[assignment]
        self.direct.answer(exchange, model)
        if exchange.task is not None:
            self.tasks.add(exchange.task)
            exchange.task.add_done_callback(self.tasks.discard)

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio has it; uvicorn returns nothing
        """Keep the connection for requests that have come whole, if their client may still read the answers.

        A client that has only closed its sending side looks like one that has gone, until something is sent: to an
        interim response (RFC 9110, 15.2), which the first one skips, the other's system answers with a reset.
        HTTP/1.0 has no such responses, and TLS no half-closed connections: there it counts as gone.
        """
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        if last is None or last.response_complete or getattr(last, "more_body", False) or self.scheme == "https":
            return False
        if self.parser.get_http_version() != "1.1" or (self.cycle is not None and self.cycle.response_started):
            return False
        last.keep_alive = False
        self.transport.write(_INTERIM)
        self._look_for_client()
        return True

    def _look_for_client(self) -> None:
        """Break off once a reset has come: nothing is read any more that would tell."""
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.loop.call_later(_LOOK_SECONDS, self._look_for_client)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what nobody waits for any more."""
        super().connection_lost(exc)
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete and exchange.task is not None:
            exchange.disconnected = True
            exchange.task.cancel()
        task: Any = self.scope.get(TASK) if self.scope is not None else None
        if task is not None and self.cycle is not None and not self.cycle.response_started:
            self.scope[GONE] = True  # type: ignore[literal-required]
            task.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP as the protocol wants it."""
        self.transport.write(bad_request(msg))
        self.transport.close()
