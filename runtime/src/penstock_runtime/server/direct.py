"""Inference requests that come whole, answered within the read that brought them.

ASGI takes a task, a scope, an event and a dictionary for each message: for a model of a few microseconds that is
most of the time. What has to wait or needs more than this goes on as a task of its own, or by ASGI, with the same
answers and the same counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from penstock_runtime.engine.line import Ran
from penstock_runtime.protocol.encode import encode_error
from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.server.app import compress_answer, read_binary_header, revision_of
from penstock_runtime.server.compression import MIN_COMPRESSED, too_large
from penstock_runtime.server.counting import Counted
from penstock_runtime.server.forward.relay import Forwarder, Route
from penstock_runtime.server.http import JSON_TYPE, LENGTH_HEADER, Header, headers_of_error
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.serving import Answer, Serving
from penstock_runtime.server.shadow.shadower import Copy, Shadower

_MODELS = b"/v2/models/"
_INFER = b"/infer"
_CLOSE = b"connection: close\r\n"


class Exchange(Protocol):
    """A request and where its answer goes."""

    url: bytes
    headers: dict[bytes, bytes]
    parts: list[bytes]
    # When its first byte came, by perf_counter().
    start: float
    # What another server is to be sent of it.
    copy: Copy | None
    # What its answer waits for; cancelled if the client goes.
    task: asyncio.Task[None] | None
    disconnected: bool

    # Whether the client may send more on its connection.
    keep_alive: bool

    def send(self, answer: bytes, close: bool) -> None:
        """Send the whole answer, and close the connection with it if asked to, or if it is not to be kept."""


class Direct:
    """Answers exchanges with one model each."""

    def __init__(
        self,
        repository: Repository,
        max_body_bytes: int,
        forwarder: Forwarder | None = None,
        shadower: Shadower | None = None,
        allows: Callable[[Mapping[bytes, bytes]], bool] | None = None,
    ) -> None:
        """Serve the models of `repository`, but for what `forwarder` chooses.

        `shadower` is offered what has been answered. `allows`: whether a request with these headers may be answered
        here; ASGI refuses the others.
        """
        self.allows = allows
        self._repository = repository
        self._max_body_bytes = max_body_bytes
        self._forwarder = forwarder
        self._shadower = shadower

    def model_at(self, url: bytes) -> Model | None:
        """Return the model whose infer path `url` is; None if this request has to go by ASGI.

        That is so for another path, a version, an escaped name, and while draining.
        """
        if not url.startswith(_MODELS) or not url.endswith(_INFER) or self._repository.draining:
            return None
        return self._repository.models.get(url[len(_MODELS) : -len(_INFER)].decode("latin-1"))

    @property
    def forwards(self) -> bool:
        """Whether any request is forwarded at the moment."""
        return self._forwarder is not None and self._forwarder.active

    def choose(self, model: Model, headers: Sequence[Header]) -> Route | None:
        """Return where a request with these headers is forwarded to, by ASGI; None if it is answered here."""
        if model.current is None or self._forwarder is None:
            return None
        return self._forwarder.choose(model.name, headers)

    def answer(self, exchange: Exchange, model: Model) -> None:
        """Answer at once, or in a task that `exchange` then knows."""
        counted = Counted(self._repository, model, exchange.start)
        try:
            later = self._begin(exchange, model, counted)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            send_error(exchange, counted.explain(error), model)
            counted.end()
            return
        if later is not None:
            exchange.task = asyncio.get_running_loop().create_task(self._later(later, counted, exchange))
        elif exchange.copy is not None:
            self._offer(counted, exchange)

    def _begin(self, exchange: Exchange, model: Model, counted: Counted[Model]) -> Coroutine[Any, Any, Answer] | None:
        """Answer and count the request and return None, or return what its answer has to wait for."""
        serving = counted.admit(None)
        begun = time.perf_counter()
        body, length = self._body(exchange)
        request = serving.decode(body, length)
        decoded = time.perf_counter()
        if self._shadower is not None and self._shadower.active:
            exchange.copy = Copy(model.metrics, exchange.url, list(exchange.headers.items()), body, length)
        fetched = serving.fetched(request)
        ran = serving.executor.begin(fetched, request.inputs)
        if not isinstance(ran, Ran):
            return _waited(serving, request, fetched, ran, decoded - begun, exchange)
        if exchange.copy is not None:
            exchange.copy.keep(request, ran)
        at_end = time.perf_counter()
        answer, predictions = serving.encode(request, fetched, ran)
        encoding = time.perf_counter() - at_end
        if b"accept-encoding" in exchange.headers and len(answer[0]) >= MIN_COMPRESSED:
            serving.count_run(ran.rows, ran.ran)
            serving.count_answer(request.rows, ran, predictions, decoded - begun, encoding)
            return _compressed(answer, exchange)
        send_answer(exchange, answer)
        counted.outcome = "ok"
        seconds = counted.leave()
        model.metrics.post_here(serving.count_whole, seconds, request.rows, ran, predictions, decoded - begun, encoding)
        return None

    async def _later(self, answer: Coroutine[Any, Any, Answer], counted: Counted[Model], exchange: Exchange) -> None:
        try:
            send_answer(exchange, await answer)
            counted.outcome = "ok"
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            if (failure := counted.fail(error, gone=exchange.disconnected)) is not None:
                send_error(exchange, failure, counted.model)
        finally:
            counted.end()
        self._offer(counted, exchange)

    def _offer(self, counted: Counted[Model], exchange: Exchange) -> None:
        if exchange.copy is not None and self._shadower is not None and counted.outcome == "ok":
            self._shadower.offer(exchange.copy)

    def _body(self, exchange: Exchange) -> tuple[bytes, int | None]:
        """Return the body, and how much of it is JSON (None: all)."""
        parts = exchange.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(body) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        value = exchange.headers.get(LENGTH_HEADER)
        if value is None:
            return body, None
        length, lead = read_binary_header(value)
        return b" " * lead + body if lead else body, length + lead


async def _waited(
    serving: Serving,
    request: InferRequest,
    fetched: tuple[str, ...],
    ran: asyncio.Future[Ran] | None,
    decoding: float,
    exchange: Exchange,
) -> Answer:
    if ran is None:
        ended = await serving.executor.run(fetched, request.inputs, serving.timeout)
    else:
        ended = await ran
    if exchange.copy is not None:
        exchange.copy.keep(request, ended)
    return await _compressed(serving.finish(request, fetched, ended, decoding), exchange)


async def _compressed(answer: Answer, exchange: Exchange) -> Answer:
    accepted = exchange.headers.get(b"accept-encoding")
    return answer if accepted is None or len(answer[0]) < MIN_COMPRESSED else await compress_answer(answer, accepted)


def send_answer(exchange: Exchange, answer: Answer) -> None:
    """Send a 200."""
    body, headers, kind = answer
    _send(exchange, 200, (kind, *headers), body)


def send_error(exchange: Exchange, error: ProtocolError, model: Model) -> None:
    """Send `error` as the protocol wants it."""
    _send(
        exchange, error.status, (JSON_TYPE, *headers_of_error(error, revision_of(model))), encode_error(error.message)
    )


def _send(exchange: Exchange, status: int, headers: Sequence[Header], body: bytes) -> None:
    parts = [STATUS_LINE[status]]
    close = False
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
        close = close or name == b"connection"
    parts += (b"content-length: %d\r\n" % len(body), b"" if close or exchange.keep_alive else _CLOSE, b"\r\n", body)
    exchange.send(b"".join(parts), close)
