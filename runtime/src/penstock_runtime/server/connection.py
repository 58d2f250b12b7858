"""uvicorn's HTTP protocol, with what it lacks for a model server.

A request's arrival and its client's departure, our error for bytes that are no HTTP, and a short way for inference
requests that come whole.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server import http
from penstock_runtime.server.forward.message import SHADOW
from penstock_runtime.server.http import GONE, ROUTE, STARTED, TASK, bad_request, body_late, shutting_down

if TYPE_CHECKING:
    from penstock_runtime.server.call import Call
    from penstock_runtime.server.direct import Direct
    from penstock_runtime.server.forward.relay import Route
    from penstock_runtime.server.repository.model import Model


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

# The largest body that is kept here while it comes.
MOST_BYTES = 2**20
# A larger body seldom comes in one read. It is not kept if there is no room for its request.
LARGE_BYTES = 2**16
# Of all bodies that are coming, however many connections there are; beyond it they are read and refused.
MOST_ARRIVING = 2**26
# What a part takes besides its bytes.
PART_BYTES = 64


class _Exchange:
    """A request on the short way. uvicorn's protocol takes it for one of its cycles."""

    __slots__ = (
        "_call", "_connection", "_task", "arrived", "disconnected", "dropped", "headers", "keep_alive", "more_body",
        "parts", "response_complete", "start", "url",
    )  # fmt: skip
    message_event = _EVENT

    def __init__(self, connection: Connection, start: float, url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self._connection = connection
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None
        self.start = start
        self.url = url
        self.headers = dict(headers)
        self.parts: list[bytes] = []
        # What `parts` take while more are to come.
        self.arrived = 0
        self.dropped = False
        self.disconnected = False
        self.keep_alive = True
        self.more_body = True
        self.response_complete = False

    @property
    def response_started(self) -> bool:
        """Whether the answer is on its way: it goes as a whole."""
        return self.response_complete

    def wait_for(self, call: Call) -> None:
        """Tell `call` if the client goes before it is answered, or if it may wait no longer."""
        self._call = call

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Have it answered by a task, which is cancelled if the client goes, or if it may wait no longer."""
        tasks = self._connection.tasks
        self._call = None
        self._task = self._connection.loop.create_task(answering)
        tasks.add(self._task)
        self._task.add_done_callback(tasks.discard)

    def settle(self, direct: Direct) -> None:
        """Be no longer among those whose bodies are coming."""
        direct.arriving -= self.arrived
        self.arrived = 0

    def drop(self, direct: Direct) -> None:
        """Keep nothing of the body."""
        self.settle(direct)
        self.parts.clear()
        self.dropped = True

    def gone(self) -> None:
        """Know that the client has gone."""
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()
        elif self._call is not None:
            self._call.abandon()
            self._call = None

    def give_up(self) -> None:
        """Let it wait no longer: the server shuts down. Tasks are cancelled by whoever shuts it down."""
        if self._call is not None:
            self._call.set_exception(shutting_down())

    def send(self, head: bytes, body: bytes, *, close: bool = False) -> None:
        """Send the whole answer, and close the connection with it if asked to, or if it is not to be kept."""
        self.response_complete = True
        # They keep each other, and only the garbage collector would see that nobody else does.
        self._call = None
        if self.disconnected:
            return
        connection = self._connection
        last = b"\r\n" if close or self.keep_alive else b"connection: close\r\n\r\n"
        connection.transport.write(b"".join((head, b"content-length: %d\r\n" % len(body), last, body)))
        if close or not self.keep_alive:
            connection.transport.close()
        elif connection.pipeline:
            connection.on_response_complete()
        else:
            connection.rest()


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
    # When there was nothing more to do, in the loop's time.
    _resting_since = 0.0
    # What ends the wait for a body.
    _body_timer: asyncio.TimerHandle | None = None

    def on_message_begin(self) -> None:
        """Begin a request: its time counts from here, for many can become readable at once."""
        self._began = perf_counter()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._decided = False

    def on_headers_complete(self) -> None:
        """Choose the way."""
        model, direct = self._find_model(), self.direct
        if model is None or direct is None:
            self._begin_cycle()
            return
        exchange = _Exchange(self, self._began, self.url, self.headers)
        if not _UNUSUAL.isdisjoint(exchange.headers) or not (direct.allows is None or direct.allows(exchange.headers)):
            self._begin_cycle()
            return
        if direct.forwards:
            self._decided = True
            self._route = direct.choose(model, self.headers)
            if self._route is not None:
                self._begin_cycle()
                return
        self._model, self._exchange = model, exchange
        exchange.dropped = LARGE_BYTES < _length_of(exchange) <= self._most_bytes(direct) and direct.full(model)

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
        """Go by ASGI after all."""
        exchange, self._model = self._exchange, None
        self._begin_cycle()
        for part in exchange.parts if exchange is not None else ():
            super().on_body(part)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade:
            # Nothing that we would upgrade to: such a request is answered as it is.
            return
        if self._model is not None and not self.transport.is_closing():
            self._wait_for_body(len(data))

    def _wait_for_body(self, arrived: int) -> None:
        """Wait for the rest of a body, if it is of a size that is kept here; by ASGI, reading can be halted.

        `arrived`: bytes that have just come.
        """
        exchange, direct = self._exchange, self.direct
        if exchange is None or direct is None:
            return
        if self._body_timer is None:
            if not 0 < _length_of(exchange) <= self._most_bytes(direct):
                self._leave_short_way()
                return
            self.cycle = exchange  # type: ignore[assignment]
            self._body_timer = self.loop.call_later(http.BODY_SECONDS, self._refuse, body_late())
        if not exchange.dropped:
            exchange.arrived += arrived + PART_BYTES
            direct.arriving += arrived + PART_BYTES
            if direct.arriving > MOST_ARRIVING:
                exchange.drop(direct)

    @staticmethod
    def _most_bytes(direct: Direct) -> int:
        return min(MOST_BYTES, direct.max_body_bytes)

    def _refuse(self, error: ProtocolError) -> None:
        """Answer the request whose body has not come."""
        model, self._model = self._model, None
        self._stop_body_timer()
        if model is not None and self._exchange is not None and self.direct is not None:
            self._exchange.keep_alive = False
            self.direct.refuse(self._exchange, model, error)

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
            if self._exchange is not None and self.direct is not None:
                self._exchange.settle(self.direct)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._model is not None and self._exchange is not None:
            if not self._exchange.dropped:
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
        self._stop_body_timer()
        exchange.more_body = False
        exchange.keep_alive = exchange.keep_alive and self.parser.should_keep_alive()
        self.cycle = exchange  # type: ignore[assignment]
        self.direct.answer(exchange, model)

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
        # uvicorn leaves it to fire where the connection broke, and with it keeps all that was here.
        self._unset_keepalive_if_required()
        exchange, model = self._exchange, self._model
        if exchange is not None and not exchange.response_complete:
            self._stop_body_timer()
            exchange.gone()
            if model is not None and self.direct is not None:
                self._model = None
                self.direct.lose(exchange, model)
        task: Any = self.scope.get(TASK) if self.scope is not None else None
        if task is not None and self.cycle is not None and not self.cycle.response_started:
            self.scope[GONE] = True  # type: ignore[literal-required]
            task.cancel()

    def rest(self) -> None:
        """Wait for the next request. The timer is not set anew for each: it finds out itself how long it was."""
        self._resting_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_idle_in(self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        """Begin the next request that waits, or wait for one."""
        self._resting_since = self.loop.time()
        super().on_response_complete()

    def _look_idle_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle all the time."""
        self.timeout_keep_alive_task = None
        if self.cycle is not None and not self.cycle.response_complete:
            return
        left = self._resting_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_idle_in(left)
        else:
            super().timeout_keep_alive_handler()

    def give_up(self) -> None:
        """Answer what waits here that it can wait no longer: the server shuts down."""
        if self._model is not None:
            self._refuse(shutting_down())
        elif self._exchange is not None:
            self._exchange.give_up()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP as the protocol wants it."""
        self.transport.write(bad_request(msg))
        self.transport.close()


def _length_of(exchange: _Exchange) -> int:
    # The parser has seen to it that it is a number; without one there is no body.
    return int(exchange.headers.get(b"content-length", b"0"))
