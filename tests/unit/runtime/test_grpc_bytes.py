"""The client of raw bytes: answers, metadata, deadlines, bounds, and connections that come and go."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.grpc import client
from penstock_runtime.server.grpc.client import Answer, Client
from tests.unit.runtime.conftest import StartProcess, StartStub
from tests.unit.runtime.grpc_client import INFER, iris_raw, slow_request
from tests.unit.runtime.grpc_stub import Stub
from tests.unit.runtime.load import until
from tests.unit.runtime.process import SETOSA, Server

REQUEST = iris_raw(SETOSA).SerializeToString()
METHOD = "/a.Service/Method"
Open = Callable[..., Client]


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    opened: list[Client] = []

    def begin(address: str | int, max_answer_bytes: int = 2**20, **more: float) -> Client:
        where = f"127.0.0.1:{address}" if isinstance(address, int) else address
        opened.append(Client(where, max_answer_bytes, **more))  # type: ignore[arg-type]
        return opened[-1]

    yield begin
    for each in opened:
        each.close()
    await asyncio.sleep(0.05)


@pytest.fixture
def hanging(start_stub: StartStub) -> Stub:
    return start_stub()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_answer_comes_as_it_was_sent(connect: Open, iris: Server, host: str) -> None:
    answer = await connect(f"{host}:{iris.grpc_port}").call(INFER, REQUEST, (), 10.0)
    assert (answer.code, answer.details, answer.trailing) == (StatusCode.OK, "", ())
    assert answer.message is not None
    assert pb.ModelInferResponse.FromString(answer.message).model_name == "m"
    assert dict(answer.initial)["penstock-revision"] == "none"
    assert "penstock-prediction-id" in dict(answer.initial)


async def test_a_refusal_comes_with_its_code_details_and_metadata(connect: Open, iris: Server) -> None:
    answer = await connect(iris.grpc_port).call(INFER, iris_raw(SETOSA[:3]).SerializeToString(), (), 10.0)
    assert (answer.code, answer.message) == (StatusCode.INVALID_ARGUMENT, None)
    assert answer.details == "input 'X': shape [1, 4] of FP32 takes 16 bytes, there are 12 bytes"
    assert dict(answer.initial) == {"penstock-revision": "none"}
    unknown = await connect(iris.grpc_port).call(METHOD, b"", (), 10.0)
    assert (unknown.code, unknown.details) == (StatusCode.UNIMPLEMENTED, "there is no such method")


async def test_metadata_goes_and_comes_unchanged(connect: Open, start_stub: StartStub) -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("early", "1"), ("early", "2")))
        context.set_trailing_metadata((("late-bin", b"\x00\xff"),))
        return request[::-1]

    stub = start_stub(answer)
    sent = (("x-user", "a"), ("x-user", "b"), ("x-data-bin", b"\xff\x00"))
    got = await connect(stub.address).call(METHOD, b"ab", sent, 10.0)
    assert got == Answer(StatusCode.OK, "", b"ba", (("early", "1"), ("early", "2")), (("late-bin", b"\x00\xff"),))
    assert set(sent) <= set(stub.seen[0])


@pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="there is no IPv6 here")
async def test_an_ipv6_address_is_in_brackets(connect: Open, start_stub: StartStub) -> None:
    stub = start_stub(lambda *_: b"x", host="[::1]")
    assert (await connect(f"[::1]:{stub.port}").call(METHOD, b"", (), 10.0)).message == b"x"


async def test_an_empty_message_is_an_answer(connect: Open, start_stub: StartStub) -> None:
    got = await connect(start_stub(lambda *_: b"").address).call(METHOD, b"", (), 10.0)
    assert (got.code, got.message) == (StatusCode.OK, b"")


async def test_a_deadline_ends_a_call_and_the_server_learns_of_it(connect: Open, hanging: Stub) -> None:
    begun = time.monotonic()
    got = await connect(hanging.address).call(METHOD, b"", (), 0.3)
    assert got.code == StatusCode.DEADLINE_EXCEEDED
    assert 0.25 < time.monotonic() - begun < 5
    assert await asyncio.to_thread(hanging.cancelled.wait, 10)


async def test_no_time_left_is_no_call(connect: Open, iris: Server) -> None:
    opened = connect(iris.grpc_port)
    for _ in range(2):
        got = await opened.call(INFER, REQUEST, (), 0.0)
        assert (got.code, got.message) == (StatusCode.DEADLINE_EXCEEDED, None)
        await opened.call(INFER, REQUEST, (), 10.0)


async def test_who_is_cancelled_cancels_the_call(connect: Open, hanging: Stub) -> None:
    opened = connect(hanging.address)
    task = asyncio.create_task(opened.call(METHOD, b"", (), 30.0))
    assert await asyncio.to_thread(hanging.entered.acquire, timeout=10)
    assert opened.calls == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(hanging.cancelled.wait, 10)
    assert opened.calls == 0


async def test_calls_are_bounded_and_do_not_hold_the_loop(connect: Open, hanging: Stub) -> None:
    opened = connect(hanging.address, max_calls=3)
    tasks = [asyncio.create_task(opened.call(METHOD, b"", (), 30.0)) for _ in range(3)]
    for _ in tasks:
        assert await asyncio.to_thread(hanging.entered.acquire, timeout=10)
    refused = Answer(StatusCode.RESOURCE_EXHAUSTED, "too many calls are under way", sent=False)
    assert await opened.call(METHOD, b"", (), 30.0) == refused
    assert len(hanging.seen) == 3
    hanging.released.set()
    assert [(await task).code for task in tasks] == [StatusCode.OK] * 3
    assert (await opened.call(METHOD, b"", (), 30.0)).code == StatusCode.OK


async def test_an_answer_beyond_the_limit_is_refused(connect: Open, start_stub: StartStub) -> None:
    stub = start_stub(lambda *_: bytes(2000))
    got = await connect(stub.address, 1000).call(METHOD, b"", (), 10.0)
    assert (got.code, got.message) == (StatusCode.RESOURCE_EXHAUSTED, None)
    assert (await connect(stub.address, 2000).call(METHOD, b"", (), 10.0)).message == bytes(2000)


async def test_nobody_there_is_unavailable_at_once(connect: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    begun = time.monotonic()
    opened = connect(port)
    answer = await opened.call(METHOD, b"", (), 30.0)
    assert (answer.code, answer.sent) == (StatusCode.UNAVAILABLE, False)
    assert time.monotonic() - begun < 1
    assert not opened.connected


async def test_who_takes_a_connection_and_says_nothing_is_unavailable_soon(connect: Open, silent: int) -> None:
    opened = connect(silent, connect_seconds=0.2)
    begun = time.monotonic()
    answers = await asyncio.gather(*(opened.call(METHOD, b"", (), 30.0) for _ in range(5)))
    assert {answer.code for answer in answers} == {StatusCode.UNAVAILABLE}
    assert 0.15 < time.monotonic() - begun < 2


async def test_a_connection_comes_back_with_the_server(
    connect: Open, start_stub: StartStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_OPTIONS", (*client._OPTIONS, ("grpc.initial_reconnect_backoff_ms", 50),
                                             ("grpc.max_reconnect_backoff_ms", 100)))  # fmt: skip
    first = start_stub(lambda *_: b"first")
    opened = connect(first.address)
    assert (await opened.call(METHOD, b"", (), 10.0)).message == b"first"
    first.close()
    await until(lambda: not opened.connected)
    assert (await opened.call(METHOD, b"", (), 10.0)).code == StatusCode.UNAVAILABLE
    start_stub(lambda *_: b"second", first.port)
    async with asyncio.timeout(30):
        while (answer := await opened.call(METHOD, b"", (), 10.0)).message != b"second":
            assert answer.code == StatusCode.UNAVAILABLE
            await asyncio.sleep(0.02)


async def test_a_server_that_dies_fails_what_is_under_way(connect: Open, start_process: StartProcess) -> None:
    server = start_process("slow").ready()
    opened = connect(server.grpc_port)
    request = slow_request(10**9).SerializeToString()
    task = asyncio.create_task(opened.call(INFER, request, (), 60.0))
    await until(lambda: opened.connected and opened.calls == 1)
    await asyncio.to_thread(server.kill)
    answer = await task
    assert (answer.code, answer.sent) == (StatusCode.UNAVAILABLE, True)


async def test_close_breaks_off_what_is_under_way(connect: Open, hanging: Stub, silent: int) -> None:
    for port, is_hanging in ((hanging.port, True), (silent, False)):
        opened = connect(port)
        task = asyncio.create_task(opened.call(METHOD, b"", (), 30.0))
        if is_hanging:
            assert await asyncio.to_thread(hanging.entered.acquire, timeout=10)
        else:
            await until(lambda: opened.calls == 1)  # noqa: B023 - awaited here
        opened.close()
        opened.close()
        assert (await asyncio.wait_for(task, 10)).code == StatusCode.UNAVAILABLE
        assert (await opened.call(METHOD, b"", (), 30.0)).code == StatusCode.UNAVAILABLE
    assert await asyncio.to_thread(hanging.cancelled.wait, 10)


async def test_calls_through_a_server_that_tells_clients_to_connect_anew(
    connect: Open, start_process: StartProcess
) -> None:
    server = start_process("iris", "--drain-seconds", "1").ready()
    opened = connect(server.grpc_port)
    codes = set()
    # Its connections live 0.8 s, give or take a tenth: this meets at least two that end.
    end = time.monotonic() + 2.5

    async def ask() -> None:
        while time.monotonic() < end:
            codes.add((await opened.call(INFER, REQUEST, (), 10.0)).code)

    await asyncio.gather(*(ask() for _ in range(8)))
    assert codes == {StatusCode.OK}
