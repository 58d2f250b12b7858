"""Leader election: expiry in virtual time, over an API server that is only a dictionary."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from penstock.adapters.lease import Elector, LeaseLost, Terms
from penstock.adapters.transport import Api, Patience, Response, Unreachable
from tests.fakes.timer import FakeTimer
from tests.fakes.until import until

TERMS = Terms(duration=15.0, renew_deadline=10.0, retry=0.002, request=0.5)


class Leases:
    """`Send` for one Lease, with resourceVersions."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.down: Callable[[], None] = lambda: None
        self.writes = 0

    async def __call__(self, method: str, path: str, headers: dict[str, str], body: Any) -> Response:
        await asyncio.sleep(0)
        self.down()
        match method:
            case "GET":
                return self._answer(404 if self.stored is None else 200)
            case "POST" if self.stored is not None:
                return self._answer(409)
            case "PUT" if self.stored is None:
                return self._answer(404)
            case "PUT" if body["metadata"]["resourceVersion"] != str(self.version):
                return self._answer(409)
        self.write(body)
        return self._answer(200)

    def write(self, body: Any) -> None:
        self.version += 1
        self.writes += 1
        self.stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}

    def edit(self, **spec: Any) -> None:
        assert self.stored is not None
        self.write({**self.stored, "spec": {**self.stored["spec"], **spec}})

    @property
    def holder(self) -> str:
        assert self.stored is not None
        return str(self.stored["spec"]["holderIdentity"])

    def _answer(self, status: int) -> Response:
        return Response(status, {}, json.dumps(self.stored if status == 200 else {}).encode())


class Bench:
    def __init__(self) -> None:
        self.leases = Leases()
        self.timer = FakeTimer()

    def elector(self, identity: str) -> Elector:
        api = Api(self.leases, patience=Patience(attempts=1))
        return Elector(api, "ops", "penstock", identity, terms=TERMS, monotonic=self.timer)

    async def leader(self, identity: str) -> Elector:
        elector = self.elector(identity)
        async with asyncio.timeout(5):
            await elector.acquire()
        return elector


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def ticks(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(TERMS.retry)


async def test_takes_a_lease_that_nobody_has(bench: Bench) -> None:
    elector = await bench.leader("a")
    assert (elector.leads, bench.leases.holder) == (True, "a")
    assert bench.leases.stored is not None
    spec = bench.leases.stored["spec"]
    assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (15, 1)


async def test_another_waits_until_it_has_not_been_renewed_for_long(bench: Bench) -> None:
    await bench.leader("a")
    second = asyncio.create_task(bench.leader("b"))
    await ticks()
    bench.timer.advance(14.9)
    await ticks()
    assert not second.done()
    bench.timer.advance(0.2)
    elector = await second
    assert (elector.leads, bench.leases.holder) == (True, "b")


async def test_what_clocks_in_the_record_say_does_not_matter(bench: Bench) -> None:
    await bench.leader("a")
    bench.leases.edit(renewTime="1999-01-01T00:00:00.000000Z")
    second = asyncio.create_task(bench.leader("b"))
    await ticks()
    assert not second.done()
    second.cancel()


async def test_a_renewal_starts_the_wait_anew(bench: Bench) -> None:
    await bench.leader("a")
    second = asyncio.create_task(bench.leader("b"))
    await ticks()
    bench.timer.advance(14)
    bench.leases.edit(renewTime="2026-11-23T20:00:00.000000Z")
    await ticks()
    bench.timer.advance(14)
    await ticks()
    assert not second.done()
    second.cancel()


async def test_holding_renews(bench: Bench) -> None:
    elector = await bench.leader("a")
    hold = asyncio.create_task(elector.hold())
    for _ in range(5):
        before = bench.leases.writes
        await until(lambda before=before: bench.leases.writes > before + 2)  # type: ignore[misc]
        bench.timer.advance(8)
    assert not hold.done()
    assert elector.leads
    hold.cancel()


async def test_a_server_that_is_away_costs_the_lease_before_another_may_take_it(bench: Bench) -> None:
    elector = await bench.leader("a")
    hold = asyncio.create_task(elector.hold())
    second = asyncio.create_task(bench.leader("b"))
    await ticks()

    def away() -> None:
        raise Unreachable("no connection")

    bench.leases.down = away
    await ticks()
    bench.timer.advance(9.9)
    await ticks()
    assert not hold.done(), "a server that is away for a while is waited for"
    bench.timer.advance(0.2)
    with pytest.raises(LeaseLost, match="could not be renewed for 10 s"):
        await hold
    assert not elector.leads
    bench.leases.down = lambda: None
    await ticks()
    assert not second.done(), "the other waits for the whole duration since it saw the last renewal"
    # it may have seen that one just now: the server went away between the renewal and its look
    bench.timer.advance(TERMS.duration + 0.1)
    await second
    assert bench.leases.holder == "b"


async def test_a_server_that_hangs_costs_it_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    elector = await bench.leader("a")

    async def hang(*_: object) -> Response:
        bench.timer.advance(11)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Leases, "__call__", hang)
    async with asyncio.timeout(5):
        with pytest.raises(LeaseLost):
            await elector.hold()


async def test_taken_by_another_is_lost_at_once(bench: Bench) -> None:
    elector = await bench.leader("a")
    bench.leases.edit(holderIdentity="b")
    with pytest.raises(LeaseLost, match="is held by b"):
        await elector.hold()
    await elector.release()
    assert bench.leases.holder == "b", "what is another's is not released"


async def test_a_write_by_a_stranger_is_no_loss(bench: Bench) -> None:
    elector = await bench.leader("a")
    hold = asyncio.create_task(elector.hold())
    bench.leases.edit(preferredHolder="b")
    before = bench.leases.writes
    await until(lambda: bench.leases.writes > before + 2)
    assert not hold.done()
    hold.cancel()


async def test_a_deleted_lease_is_made_again(bench: Bench) -> None:
    elector = await bench.leader("a")
    hold = asyncio.create_task(elector.hold())
    bench.leases.stored = None
    await until(lambda: bench.leases.stored is not None)
    assert (bench.leases.holder, hold.done()) == ("a", False)
    hold.cancel()


async def test_released_is_free_at_once(bench: Bench) -> None:
    elector = await bench.leader("a")
    await elector.release()
    assert not elector.leads
    second = await bench.leader("b")
    assert second.leads
    assert bench.leases.stored is not None
    assert bench.leases.stored["spec"]["leaseTransitions"] == 2


async def test_release_never_raises(bench: Bench) -> None:
    elector = await bench.leader("a")

    def away() -> None:
        raise Unreachable("no connection")

    bench.leases.down = away
    await elector.release()
    assert not elector.leads


async def test_of_many_at_once_one_leads(bench: Bench) -> None:
    tasks = [asyncio.create_task(bench.leader(name)) for name in "abcdef"]
    await ticks()
    leaders = [task.result() for task in tasks if task.done()]
    assert len(leaders) == 1
    assert leaders[0].leads
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.parametrize(
    "terms",
    [
        {"duration": 10.0},
        {"renew_deadline": 2.0},
        {"request": 5.0},
    ],
)
def test_terms_that_let_two_lead_are_refused(terms: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Terms(**terms)
