"""Calls of everything but inference, on the event loop: probes, those who watch the health, people who look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from penstock_runtime.log import event, origin
from penstock_runtime.protocol.errors import InvalidRequest, Overloaded, ProtocolError, Unavailable
from penstock_runtime.server.grpc.codes import status_of
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.http import BODY_SECONDS

logger = logging.getLogger(__name__)

# Of those that end by themselves, and of those that do not.
MAX_SIDE_CALLS = 256
NO_MESSAGE = InvalidRequest("the call has no message")


class Method(NamedTuple):
    """What answers a call and ends it; `lasts`: not before the client is gone, as a rule."""

    answer: Callable[[Call], Awaitable[None]]
    lasts: bool = False


class SideCalls:
    """All such calls that are under way."""

    def __init__(self, find: Callable[[bytes], Method | None]) -> None:
        """`find` returns what answers a method by its path; None: nothing does."""
        self._find = find
        self._ordinary: set[Call] = set()
        self._open_ended: set[Call] = set()

    def take(self, call: Call) -> None:
        """Have a call that has arrived answered; in the server's thread."""
        method = self._find(call.method)
        if method is None:
            call.finish(status=status_of(ProtocolError("there is no such method", status=501)))
            return
        group = self._open_ended if method.lasts else self._ordinary
        if len(group) >= MAX_SIDE_CALLS:
            call.finish(status=status_of(Overloaded()))
        else:
            group.add(call)
            call.spawn(partial(self._answer, call, method, group))

    def abandon(self) -> None:
        """End all; on the event loop."""
        for call in (*self._ordinary, *self._open_ended):
            call.abandon()

    async def _answer(self, call: Call, method: Method, group: set[Call]) -> None:
        error: ProtocolError | None = None
        try:
            if not call.gone:
                await method.answer(call)
        except asyncio.CancelledError:
            error = Unavailable("the server is shutting down")
        except ProtocolError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - the protocol wants an answer whatever happens
            event(logger, "unexpected failure", level=logging.ERROR, error=type(failure).__name__,
                  where=origin(failure))  # fmt: skip
            error = ProtocolError("internal error", status=500)
        finally:
            group.discard(call)
        if error is not None:
            call.finish(status=status_of(error))


def answering(kind: type[Message], answer: Callable[[Any], Message]) -> Method:
    """Return the method that answers a message of `kind` by `answer`, at once."""

    async def answer_one(call: Call) -> None:
        call.finish(answer(await first(call, kind)).SerializeToString())

    return Method(answer_one)


def parse(kind: type[Message], payload: bytes | None) -> Any:
    """Return the message; raises InvalidRequest if `payload` is none."""
    if payload is None:
        raise NO_MESSAGE
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise InvalidRequest(f"the message is no valid {kind.__name__}") from None


async def first(call: Call, kind: type[Message]) -> Any:
    """Return the message of a call that has one; raises InvalidRequest if it is none, or does not come in time."""
    return parse(kind, await first_bytes(call))


async def first_bytes(call: Call) -> bytes:
    """Return the message of a call that has one, as it came; raises InvalidRequest if it does not come in time."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            payload = await call.next()
    except TimeoutError:
        raise InvalidRequest(f"the message did not arrive within {BODY_SECONDS:g} s") from None
    if payload is None:
        raise NO_MESSAGE
    return payload
