"""The little of HTTP that the apps share: reading a bounded body, answering."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from penstock_runtime.log import event, origin
from penstock_runtime.protocol.encode import encode_error
from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError, Unavailable
from penstock_runtime.server.compression import decoded, too_large

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

NAME = "penstock-runtime"
# Key in an ASGI scope: perf_counter() when the request's first byte was parsed.
STARTED = "penstock.started"
# Keys in an ASGI scope: the task to cancel if the client goes away before it is answered, and that it has gone.
TASK = "penstock.task"
GONE = "penstock.gone"
# Key in an ASGI scope: where the request is to be forwarded to, or None, if that has been decided.
ROUTE = "penstock.route"
# Seconds for a client to send its whole body.
BODY_SECONDS = 60.0
JSON_TYPE: Header = (b"content-type", b"application/json")
BINARY_TYPE: Header = (b"content-type", b"application/octet-stream")
LENGTH_HEADER = b"inference-header-content-length"
CLOSE: Header = (b"connection", b"close")


class Disconnected(Exception):  # noqa: N818 - an event more than an error
    """The client went away before its request was complete."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int, lead: int = 0) -> bytes:
    """Return the request's body of at most `limit` bytes, decompressed, with `lead` spaces before it.

    Raises ProtocolError: 413 if it is larger (by Content-Length, before any of it is read, or once it is
    decompressed), 415 if it is encoded in a way we do not know, 408 if it does not arrive within 60 s;
    Disconnected if the client goes.
    """
    if int(headers.get(b"content-length", 0)) > limit:
        raise too_large(limit)
    coding = headers.get(b"content-encoding")
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message["body"]
        if len(body) > limit:
            raise too_large(limit)
        if coding is None and not lead:
            return body
        parts = [body]
    else:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                parts = await _read_rest(message, receive, limit)
        except TimeoutError:
            raise body_late() from None
    if coding is not None:
        parts = await decoded(b"".join(parts), coding.lower(), limit)
    if lead:
        parts.insert(0, b" " * lead)
    return b"".join(parts)


async def _read_rest(message: Message, receive: Receive, limit: int) -> list[bytes]:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts
        message = await receive()


def head_of(status: int, headers: Iterable[Header]) -> bytes:
    """Return status line and `headers` as they are sent, up to where more headers may follow."""
    return STATUS_LINE[status] + b"".join([b"%b: %b\r\n" % header for header in headers])


async def answer(
    send: Send, status: int, body: bytes, headers: Iterable[Header] = (), content_type: Header = JSON_TYPE
) -> None:
    """Send a whole response, JSON unless `content_type` says otherwise."""
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [content_type, (b"content-length", b"%d" % len(body)), *headers],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})


async def answer_error(send: Send, error: ProtocolError, headers: Iterable[Header] = ()) -> None:
    """Send `error` as the protocol wants it, with Retry-After where trying again may help."""
    await answer(send, error.status, encode_error(error.message), headers_of_error(error, headers))


def headers_of_error(error: ProtocolError, headers: Iterable[Header]) -> list[Header]:
    """Return `headers` and those that an answer of `error` needs besides."""
    extra = [*headers, *error.headers]
    if error.status in (429, 503):
        extra.append((b"retry-after", b"1"))
    if error.status in (408, 413):
        extra.append(CLOSE)
    return extra


def unexpected(error: Exception) -> ProtocolError:
    """Log a failure that nobody foresaw, and return what the client is told of it."""
    event(logger, "unexpected failure", level=logging.ERROR, error=type(error).__name__, where=origin(error))
    return ProtocolError("internal error", status=500)


def body_late() -> ProtocolError:
    """Return the error for a body that takes too long."""
    return ProtocolError(f"the body did not arrive within {BODY_SECONDS:g} s", status=408)


def shutting_down() -> ProtocolError:
    """Return the error for a request that there is no time left for."""
    return Unavailable("the server is shutting down")


def not_found(path: str) -> ProtocolError:
    """Return the error for a path that leads nowhere."""
    return ProtocolError(f"there is nothing at {path[:200]}", status=404)


def require_method(scope: Scope, *methods: str) -> None:
    """Raise the 405 unless the request uses one of `methods`."""
    if scope["method"] not in methods:
        raise MethodNotAllowed(methods)


class MethodNotAllowed(ProtocolError):  # noqa: N818
    """A 405, which must tell what is allowed."""

    status = 405

    def __init__(self, methods: tuple[str, ...]) -> None:
        """`methods` are the allowed ones."""
        super().__init__(f"method not allowed; use {' or '.join(methods)}")
        self.headers = ((b"allow", ", ".join(methods).encode()),)


def bad_request(message: str) -> bytes:
    """Return a complete raw 400 response, for bytes that are no HTTP request at all."""
    body = encode_error(InvalidRequest(message).message)
    return (
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    ) + body
