"""A target of several addresses: balanced, resolved anew, bounded, and left alone where it is dead."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock_runtime.server.forward import endpoint, target
from penstock_runtime.server.forward.breaker import FIRST_PAUSE, LONGEST_PAUSE
from penstock_runtime.server.forward.endpoint import Endpoint
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.forward.target import NoAnswer, Target
from tests.unit.runtime.load import until
from tests.unit.runtime.targets import Target as Server
from tests.unit.runtime.targets import answering, response

PARTS = (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",)
Start = Callable[..., Server]


class Names(dict[str, list[str] | Exception]):
    """What names lead to: addresses, or the error of the resolver; and how often it was asked."""

    lookups = 0


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Server] = []

    def begin(host: str = "127.0.0.1", port: int = 0, **more: Any) -> Server:
        script = more.get("script") or answering(response(200, host.encode()))
        started.append(Server(script, host, port))
        return started[-1]

    yield begin
    for server in started:
        server.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What names lead to; a resolver of our own, since tests must not need the network's."""
    known = Names()

    async def getaddrinfo(_loop: object, host: str, port: int, **_: object) -> list[Any]:
        known.lookups += 1
        found = known[host]
        if isinstance(found, Exception):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(target, "RESOLVE_SECONDS", 0.05)
    return known


async def ask(asked: Target, times: int) -> Counter[str]:
    return Counter([(await asked.exchange(PARTS, 10.0)).body.decode() for _ in range(times)])


async def test_requests_go_to_all_addresses_of_a_name_evenly(start: Start, names: Names) -> None:
    port = start("127.0.0.1").port
    start("127.0.0.2", port)
    start("127.0.0.3", port)
    names["canary"] = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]
    asked = Target(Address("canary", port), 1000)
    assert await ask(asked, 30) == {"127.0.0.1": 10, "127.0.0.2": 10, "127.0.0.3": 10}
    assert asked.describe() == {"addresses": 3, "failing": 0, "connections": 3, "idle": 3}
    asked.abort()


async def test_a_loop_that_comes_back_late_does_not_take_its_target_for_dead(start: Start) -> None:
    asked = Target(Address("127.0.0.1", start().port), 1000)
    answer = asyncio.get_running_loop().create_task(asked.exchange(PARTS, 10.0))
    await asyncio.sleep(0)
    assert asked.describe()["connections"] == 1, "it is being made"
    time.sleep(target.CONNECT_SECONDS + 0.05)  # noqa: ASYNC251 (the loop is held up, as by a busy machine)
    assert (await answer).status == 200
    assert asked.describe()["failing"] == 0
    asked.abort()


async def test_a_dead_address_among_others_costs_no_answer(start: Start, names: Names) -> None:
    port = start("127.0.0.1").port
    names["canary"] = ["127.0.0.1", "127.0.0.2"]
    asked = Target(Address("canary", port), 1000)
    assert await ask(asked, 20) == {"127.0.0.1": 20}
    assert asked.describe()["failing"] == 1
    asked.abort()


async def test_addresses_follow_the_name(start: Start, names: Names) -> None:
    port = start("127.0.0.1").port
    start("127.0.0.2", port)
    names["canary"] = ["127.0.0.1"]
    asked = Target(Address("canary", port), 1000)
    assert await ask(asked, 4) == {"127.0.0.1": 4}
    names["canary"] = ["127.0.0.2"]
    async with asyncio.timeout(10):
        while await ask(asked, 1) != {"127.0.0.2": 1}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await ask(asked, 4) == {"127.0.0.2": 4}
    assert asked.describe()["addresses"] == 1
    names["canary"] = OSError("no such name")
    before = names.lookups
    async with asyncio.timeout(10):
        while names.lookups == before:
            await asyncio.sleep(0.01)
            assert await ask(asked, 1) == {"127.0.0.2": 1}
    assert await ask(asked, 4) == {"127.0.0.2": 4}, "a resolver that fails takes nothing away"
    asked.abort()


async def test_a_name_that_does_not_exist_is_tried_again(
    start: Start, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    names["canary"] = socket.gaierror("no such name")
    server = start()
    asked = Target(Address("canary", server.port), 1000)
    for _ in range(3):
        with pytest.raises(NoAnswer, match="unreachable"):
            await asked.exchange(PARTS, 10.0)
    async with asyncio.timeout(10):
        while names.lookups < 2:
            await asyncio.sleep(0.01)
            with pytest.raises(NoAnswer, match="unreachable"):
                await asked.exchange(PARTS, 10.0)
    assert [record.message for record in caplog.records] == ["the target's name cannot be resolved"]
    names["canary"] = ["127.0.0.1"]
    async with asyncio.timeout(10):
        while True:
            try:
                response_ = await asked.exchange(PARTS, 10.0)
                break
            except NoAnswer:
                await asyncio.sleep(0.01)
    assert response_.status == 200
    asked.abort()


async def test_a_resolver_that_hangs_does_not_hold_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    asked = Target(Address("canary", 80), 1000)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for _ in range(10):
        with pytest.raises(NoAnswer, match="unreachable"):
            await asked.exchange(PARTS, 10.0)
    assert loop.time() - begun < 1.5, "only the first waits, a quarter of a second"
    asked.abort()


async def test_connections_are_bounded(start: Start) -> None:
    def script(_connection: socket.socket, _number: int) -> bool:
        return True

    server = start(script=script)
    asked = Target(Address("127.0.0.1", server.port), 1000, max_connections=3)
    waiting = [asyncio.create_task(asked.exchange(PARTS, 10.0)) for _ in range(3)]
    await until(lambda: len(server.requests) == 3)
    with pytest.raises(NoAnswer, match="busy"):
        await asked.exchange(PARTS, 10.0)
    asked.abort()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(result) for result in results] == ["dropped"] * 3
    assert asked.describe()["connections"] == 0


async def test_an_idle_connection_makes_room_for_another_address(start: Start, names: Names) -> None:
    port = start("127.0.0.1").port
    start("127.0.0.2", port)
    names["canary"] = ["127.0.0.1", "127.0.0.2"]
    asked = Target(Address("canary", port), 1000, max_connections=1)
    assert (await ask(asked, 10)).total() == 10
    asked.abort()


async def test_connections_that_are_old_or_unused_are_closed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    monkeypatch.setattr(endpoint, "MAX_AGE", 0.0)
    asked = Target(Address("127.0.0.1", server.port), 1000)
    await ask(asked, 3)
    assert server.connections == 3
    asked.abort()
    monkeypatch.setattr(endpoint, "MAX_AGE", 60.0)
    monkeypatch.setattr(endpoint, "MAX_IDLE", 0.0)
    monkeypatch.setattr(target, "SWEEP_SECONDS", 0.05)
    asked = Target(Address("127.0.0.1", server.port), 1000)
    await ask(asked, 3)
    assert server.connections == 4
    await until(lambda: asked.describe()["connections"] == 0)
    asked.abort()


async def test_a_target_that_is_exchanged_finishes_what_is_under_way(start: Start) -> None:
    server = start()
    asked = Target(Address("127.0.0.1", server.port), 1000)
    await ask(asked, 1)
    under_way = asyncio.create_task(asked.exchange(PARTS, 10.0))
    await asyncio.sleep(0)
    asked.close()
    assert (await under_way).status == 200
    await until(lambda: asked.describe()["connections"] == 0)


async def test_a_second_answer_to_one_request_is_nobodys(start: Start) -> None:
    twice = response(200, b"mine") + response(200, b"whose")
    server = start(script=answering(twice))
    asked = Target(Address("127.0.0.1", server.port), 1000)
    assert await ask(asked, 5) == {"mine": 5}
    assert server.connections == 5
    asked.abort()


def test_pauses_of_a_failing_address_double_up_to_a_bound_and_one_request_at_a_time_tries() -> None:
    tried = Endpoint("127.0.0.1", 1)
    assert tried.admits(0.0)
    assert tried.fail(0.0), "the first failure is news"
    assert not tried.fail(0.0), "those that fail with it are not, nor do they make the pause longer"
    now = 0.0
    for expected in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert not tried.admits(now + expected * 0.75 * FIRST_PAUSE - 0.01)
        now += expected * 1.25
        assert tried.admits(now)
        assert not tried.admits(now), "the others go elsewhere until it is known"
        assert not tried.fail(now)
        assert expected <= LONGEST_PAUSE
    now += 12.5
    assert tried.admits(now)
    assert tried.succeed(now)
    assert tried.admits(now)
    assert tried.admits(now)
    assert not tried.succeed(now)


def test_one_slow_answer_among_others_is_not_a_dead_address() -> None:
    tried = Endpoint("127.0.0.1", 1)
    tried.succeed(5.0)
    assert not tried.fail(6.0, begun=4.0)
    assert tried.admits(6.0)
    tried.fail(8.0, begun=7.0)
    assert not tried.admits(8.0)


def test_a_try_that_tells_nothing_lets_the_next_one_try() -> None:
    tried = Endpoint("127.0.0.1", 1)
    tried.fail(0.0)
    assert tried.admits(2.0)
    tried.leave()
    assert tried.admits(2.0)
