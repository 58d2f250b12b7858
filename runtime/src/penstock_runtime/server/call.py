"""One request on the short way: decoded, run, answered and counted with as few steps as can be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from penstock_runtime.engine.job import Job, Place, Ran
from penstock_runtime.protocol.encode import encode_error
from penstock_runtime.protocol.errors import Overloaded, ProtocolError
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.server.app import compress_answer, read_binary_header, revision_of
from penstock_runtime.server.compression import MIN_COMPRESSED, too_large
from penstock_runtime.server.counting import Counted, InFlight
from penstock_runtime.server.http import CLOSE, JSON_TYPE, LENGTH_HEADER, head_of, headers_of_error
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.serving import Answer, Serving
from penstock_runtime.server.shadow.shadower import Copy, Shadower
from penstock_runtime.server.together import answer_together


class Exchange(Protocol):
    """A request and where its answer goes."""

    url: bytes
    headers: dict[bytes, bytes]
    parts: list[bytes]
    # Whether the body was not kept, since there was no room for the request when it came.
    dropped: bool
    # When its first byte came, by perf_counter().
    start: float
    disconnected: bool

    def send(self, head: bytes, body: bytes, *, close: bool = False) -> None:
        """Send the whole answer; `head` is status line and headers, but for the length of `body`.

        The connection is closed with it if asked to, or if it is not to be kept.
        """

    def wait_for(self, call: Call) -> None:
        """Tell `call` if the client goes before it is answered, or if it may wait no longer."""

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Have it answered by a task, which is cancelled if the client goes, or if it may wait no longer."""


class Call(Counted[Model]):
    """An exchange from its arrival to its end, and who waits for the run that answers it."""

    __slots__ = (
        "_accepts_coding", "_copy", "_fetched", "_job", "_place", "_shadower", "decoding", "exchange", "request",
    )  # fmt: skip
    serving: Serving
    request: InferRequest
    # Seconds.
    decoding: float
    _fetched: tuple[str, ...]
    _accepts_coding: bool

    def __init__(self, process: InFlight, model: Model, exchange: Exchange, shadower: Shadower | None) -> None:
        """`shadower`, if any, is offered what has been answered."""
        super().__init__(process, model, exchange.start)
        self.exchange = exchange
        self._shadower = shadower
        self._copy: Copy | None = None
        # Where it waits for its run.
        self._place: Place | None = None
        self._job: Job | None = None

    def answer(self, max_body_bytes: int) -> None:
        """Answer at once, or wait for a run that does."""
        try:
            self._begin(max_body_bytes)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            self._fail(error)

    def _begin(self, max_body_bytes: int) -> None:
        exchange = self.exchange
        serving = self.admit(None)
        if exchange.dropped:
            raise Overloaded
        begun = time.perf_counter()
        body, length = _body(exchange, max_body_bytes)
        self.request = request = serving.decode(body, length)
        self.decoding = time.perf_counter() - begun
        self._accepts_coding = b"accept-encoding" in exchange.headers
        if self._shadower is not None:
            self._copy = Copy(self.model.metrics, exchange.url, list(exchange.headers.items()), body, length)
        self._fetched = fetched = serving.fetched(request)
        begun_run = serving.executor.begin(fetched, request.inputs)
        if isinstance(begun_run, Ran):
            self._finish(begun_run, alone=True)
            return
        self._job = begun_run.join(fetched, request.inputs, serving.timeout, self, answer_together)
        self._place = begun_run
        exchange.wait_for(self)

    def refuse(self, error: ProtocolError) -> None:
        """Answer `error` before it is known what is asked for."""
        self._fail(error)

    @property
    def plain(self) -> bool:
        """Whether the answer is one row in JSON, sent as it is."""
        request = self.request
        return request.rows == 1 and not request.binary and self._copy is None and not self._accepts_coding

    def done(self) -> bool:
        """Return whether it waits for a run no more."""
        return self._place is None

    def set_result(self, ran: Ran) -> None:
        """Answer with what came of a run."""
        self._leave_place()
        try:
            self._finish(ran, alone=False)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            self._fail(error)

    def set_exception(self, error: Exception) -> None:
        """Answer that nothing came of a run, or that it is not waited for any longer."""
        self._leave_place()
        self._fail(error)

    def abandon(self) -> None:
        """Wait no more: the client has gone."""
        self._leave_place()
        self.outcome = "client_error"
        self.end()

    def answered(self) -> float:
        """Be over, without being counted; return the seconds since it came."""
        self._leave_place()
        return self.leave()

    def _leave_place(self) -> None:
        if self._place is not None and self._job is not None:
            self._place.leave(self._job)
            self._place = self._job = None

    def _finish(self, ran: Ran, *, alone: bool) -> None:
        """Answer and count; `alone`: the run was for this request only, and has to be counted with it."""
        request, serving = self.request, self.serving
        if self._copy is not None:
            self._copy.keep(request, ran)
        at_end = time.perf_counter()
        answer, predictions = serving.encode(request, self._fetched, ran)
        encoding = time.perf_counter() - at_end
        if self._accepts_coding and len(answer[0]) >= MIN_COMPRESSED:
            if alone:
                serving.count_run(ran.rows, ran.ran)
            serving.count_answer(request.rows, ran, predictions, self.decoding, encoding)
            self.exchange.run(self._compress(answer))
            return
        send_answer(self.exchange, answer)
        self.outcome = "ok"
        seconds = self.leave()
        count = serving.count_alone if alone else serving.count_whole
        self.model.metrics.post_here(count, seconds, request.rows, ran, predictions, self.decoding, encoding)
        self._offer()

    async def _compress(self, answer: Answer) -> None:
        exchange = self.exchange
        try:
            send_answer(exchange, await compress_answer(answer, exchange.headers[b"accept-encoding"]))
            self.outcome = "ok"
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            if (failure := self.fail(error, gone=exchange.disconnected)) is not None:
                send_error(exchange, failure, self.model)
        self.end()
        self._offer()

    def _fail(self, error: Exception) -> None:
        send_error(self.exchange, self.explain(error), self.model)
        self.end()

    def _offer(self) -> None:
        if self._copy is not None and self._shadower is not None and self.outcome == "ok":
            self._shadower.offer(self._copy)


def _body(exchange: Exchange, most: int) -> tuple[bytes, int | None]:
    """Return the body, and how much of it is JSON (None: all)."""
    parts = exchange.parts
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(body) > most:
        raise too_large(most)
    value = exchange.headers.get(LENGTH_HEADER)
    if value is None:
        return body, None
    length, lead = read_binary_header(value)
    return b" " * lead + body if lead else body, length + lead


def send_answer(exchange: Exchange, answer: Answer) -> None:
    """Send a 200."""
    body, headers, kind = answer
    exchange.send(head_of(200, (kind, *headers)), body)


def send_error(exchange: Exchange, error: ProtocolError, model: Model) -> None:
    """Send `error` as the protocol wants it."""
    headers = (JSON_TYPE, *headers_of_error(error, revision_of(model)))
    exchange.send(head_of(error.status, headers), encode_error(error.message), close=CLOSE in headers)
