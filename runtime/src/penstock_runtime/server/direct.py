"""Inference requests that come whole, answered within the read that brought them.

ASGI takes a task, a scope, an event and a dictionary for each message: for a model of a few microseconds that is
most of the time. What has to wait or needs more than this goes on as a task of its own, or by ASGI, with the same
answers and the same counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from penstock_runtime.engine.line import Ran
from penstock_runtime.protocol.decode import InferRequest
from penstock_runtime.protocol.encode import encode_error
from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.server.app import compress_answer, read_binary_header, revision_of
from penstock_runtime.server.compression import MIN_COMPRESSED, too_large
from penstock_runtime.server.counting import Counted
from penstock_runtime.server.http import JSON_TYPE, Header, headers_of_error
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.serving import LENGTH_HEADER, Answer, Serving

_MODELS = b"/v2/models/"
_INFER = b"/infer"


class Hook(Protocol):
    """Something that has to see each request while it is active, which it does in the ASGI app."""

    @property
    def active(self) -> bool:
        """Whether it has to."""


class Exchange(Protocol):
    """A request and where its answer goes."""

    headers: dict[bytes, bytes]
    parts: list[bytes]
    # When its first byte came, by perf_counter().
    start: float
    # What its answer waits for; cancelled if the client goes.
    task: asyncio.Task[None] | None
    disconnected: bool

    def send(self, parts: Iterable[bytes], close: bool = False) -> None:
        """Send the whole answer, and close the connection with it if asked to."""


class Direct:
    """Answers exchanges with one model each."""

    def __init__(self, repository: Repository, max_body_bytes: int, hooks: Sequence[Hook] = ()) -> None:
        """Serve the models of `repository` as long as none of `hooks` is active."""
        self._repository = repository
        self._max_body_bytes = max_body_bytes
        self._hooks = hooks

    def model_at(self, url: bytes) -> Model | None:
        """Return the model whose infer path `url` is; None if this request has to go by ASGI.

        That is so for another path, a version, an escaped name, while draining and while a hook is active.
        """
        if not url.startswith(_MODELS) or not url.endswith(_INFER) or self._repository.draining:
            return None
        model = self._repository.models.get(url[len(_MODELS) : -len(_INFER)].decode("latin-1"))
        return None if model is None or any(hook.active for hook in self._hooks) else model

    def answer(self, exchange: Exchange, model: Model) -> None:
        """Answer at once, or in a task that `exchange` then knows."""
        counted = Counted(self._repository, model, exchange.start)
        later = None
        try:
            serving = counted.admit(None)
            begun = time.perf_counter()
            request = self._decode(serving, exchange)
            decoding = time.perf_counter() - begun
            fetched = serving.fetched(request)
            ran = serving.executor.begin(fetched, request.inputs)
            if isinstance(ran, Ran):
                answer = serving.finish(request, fetched, ran, decoding)
                if b"accept-encoding" not in exchange.headers or len(answer[0]) < MIN_COMPRESSED:
                    send_answer(exchange, answer)
                    counted.outcome = "ok"
                    return
                later = _compressed(answer, exchange)
            else:
                later = _waited(serving, request, fetched, ran, decoding, exchange)
        except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
            send_error(exchange, counted.explain(error), model)
        finally:
            if later is None:
                counted.end()
        if later is not None:
            exchange.task = asyncio.get_running_loop().create_task(_later(later, counted, exchange))

    def _decode(self, serving: Serving, exchange: Exchange) -> InferRequest:
        parts = exchange.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(body) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        value = exchange.headers.get(LENGTH_HEADER)
        if value is None:
            return serving.decode(body, None)
        length, lead = read_binary_header(value)
        return serving.decode(b" " * lead + body if lead else body, length + lead)


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
    return await _compressed(serving.finish(request, fetched, ended, decoding), exchange)


async def _compressed(answer: Answer, exchange: Exchange) -> Answer:
    accepted = exchange.headers.get(b"accept-encoding")
    return answer if accepted is None or len(answer[0]) < MIN_COMPRESSED else await compress_answer(answer, accepted)


async def _later(answer: Coroutine[Any, Any, Answer], counted: Counted, exchange: Exchange) -> None:
    try:
        send_answer(exchange, await answer)
        counted.outcome = "ok"
    except asyncio.CancelledError:
        if exchange.disconnected:
            counted.outcome = "client_error"
            return
        counted.outcome = "rejected"
        send_error(exchange, Unavailable("the server is shutting down"), counted.model)
    except Exception as error:  # noqa: BLE001 - the protocol wants an answer whatever happens
        send_error(exchange, counted.explain(error), counted.model)
    finally:
        counted.end()


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
    head = [STATUS_LINE[status]]
    close = False
    for name, value in headers:
        head += (name, b": ", value, b"\r\n")
        close = close or name == b"connection"
    head.append(b"content-length: %d\r\n" % len(body))
    exchange.send((b"".join(head), body), close)
