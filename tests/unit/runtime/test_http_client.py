"""The bytes of an answer, in whatever pieces and of whatever kind: a whole answer, or an error, and nothing else."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.server.forward.http_client import BrokenExchange, Connection, Response
from tests.unit.runtime.targets import response

LIMIT = 1000
PLAIN = response(200, b"0123456789" * 20, "penstock-revision: r", "Content-Type: odd/type")
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nA;x=y\r\n0123456789\r\n0\r\nlate: 1\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


class Wire(asyncio.Transport):
    """The end of a connection that is played by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def writelines(self, list_of_data: object) -> None:
        """Take the request."""

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def answered(pieces: list[bytes], lost: bool = True) -> tuple[Response | BrokenExchange, bool]:
    """Return what a request gets whose answer comes in `pieces`, and whether another may follow."""

    async def exchange() -> tuple[Response | BrokenExchange, bool]:
        connection = Connection(LIMIT, lambda _: None)
        wire = Wire()
        connection.connection_made(wire)
        task = asyncio.create_task(connection.exchange((b"request",)))
        await asyncio.sleep(0)
        for piece in pieces:
            if not wire.closed:
                connection.data_received(piece)
        if lost and not task.done():
            await asyncio.sleep(0)
            if not task.done():
                connection.connection_lost(None)
        try:
            result: Response | BrokenExchange = await task
        except BrokenExchange as broken:
            result = broken
        return result, connection.reusable

    return asyncio.run(exchange())


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [(PLAIN, 200, b"0123456789" * 20), (CHUNKED, 200, b"abcde0123456789"), (EMPTY, 204, b""),
     (EARLY + PLAIN, 200, b"0123456789" * 20), (EARLY + EARLY + EMPTY, 204, b"")],
)  # fmt: skip
@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(
    answer: bytes, status: int, body: bytes, cuts: list[int]
) -> None:
    at = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    result, reusable = answered([answer[start:end] for start, end in pairwise(at)])
    assert isinstance(result, Response)
    assert (result.status, result.body) == (status, body)
    assert reusable


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED, EARLY + PLAIN])
@given(data=st.data())
def test_an_answer_that_ends_early_is_none(answer: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(answer) - 1))
    result, reusable = answered([answer[:length]])
    assert isinstance(result, BrokenExchange)
    assert (result.unanswered, result.garbled) == (length == 0, False)
    assert not reusable


@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", PLAIN[:60]]))
def test_any_bytes_end_in_an_answer_or_an_error(pieces: list[bytes], start: bytes) -> None:
    result, _ = answered([start, *pieces] if start else [piece for piece in pieces if piece])
    assert isinstance(result, (Response, BrokenExchange))


@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_a_changed_byte_ends_in_an_answer_or_an_error(at: int, byte: int) -> None:
    result, _ = answered([PLAIN[:at] + bytes([byte]) + PLAIN[at + 1 :]])
    assert isinstance(result, BrokenExchange) or len(result.body) <= LIMIT


def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    async def surprise() -> bool:
        connection = Connection(LIMIT, lambda _: None)
        wire = Wire()
        connection.connection_made(wire)
        connection.data_received(PLAIN)
        return wire.closed

    assert asyncio.run(surprise())


async def test_a_connection_carries_one_request_at_a_time_and_closes_when_nobody_waits() -> None:
    connection = Connection(LIMIT, lambda _: None)
    wire = Wire()
    connection.connection_made(wire)
    task = asyncio.create_task(connection.exchange((b"request",)))
    await asyncio.sleep(0)
    with pytest.raises(BrokenExchange) as caught:
        await connection.exchange((b"another",))
    assert caught.value.unanswered
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.closed
    assert not connection.reusable
