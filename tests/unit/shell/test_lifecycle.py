"""Start, leadership, and the end of the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from penstock.adapters.lease import LeaseLost
from penstock.shell.http import Health
from penstock.shell.lifecycle import Parts, live
from penstock.shell.queue import WorkQueue
from penstock.shell.telemetry import Telemetry
from penstock.shell.workers import Key, Workers
from tests.fakes.clock import FakeClock
from tests.fakes.until import until


class FakeElector:
    """Leads when told."""

    def __init__(self) -> None:
        self.granted = asyncio.Event()
        self.lost = asyncio.Event()
        self.released = 0
        self.leads = False

    async def acquire(self) -> None:
        await self.granted.wait()
        self.leads = True

    async def hold(self) -> None:
        await self.lost.wait()
        self.leads = False
        raise LeaseLost("another holds it")

    async def release(self) -> None:
        self.released += self.leads


class Bench:
    def __init__(self, reconcile: Callable[[Key], Awaitable[None]] | None = None) -> None:
        self.elector = FakeElector()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.telemetry = Telemetry()
        self.seen: list[Key] = []
        self._reconcile = reconcile
        self.watches: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        workers = Workers(self.queue, self, FakeClock(), self.telemetry, count=2)
        self.parts = Parts(self.queue, self.elector, Health(), self.telemetry, self._watch, workers.run, self._resync)

    async def reconcile(self, key: Key) -> None:
        if self._reconcile is not None:
            await self._reconcile(key)
        self.seen.append(key)

    async def _watch(self) -> None:
        await self.watches

    async def _resync(self) -> None:
        await asyncio.Event().wait()

    def leader(self) -> float | None:
        return self.telemetry.registry.get_sample_value("penstock_leader")


async def test_works_only_while_leading() -> None:
    bench = Bench()
    life = asyncio.create_task(live(bench.parts))
    bench.queue.add(("ml", "a"))
    await asyncio.sleep(0.01)
    assert bench.seen == []
    bench.elector.granted.set()
    await until(lambda: bench.seen == [("ml", "a")])
    assert bench.leader() == 1
    os.kill(os.getpid(), signal.SIGTERM)
    assert await life == 0
    assert (bench.elector.released, bench.leader()) == (1, 0)


async def test_a_stand_by_ends_at_once() -> None:
    bench = Bench()
    life = asyncio.create_task(live(bench.parts))
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await life == 0
    assert bench.elector.released == 0


async def test_running_reconciles_finish_and_no_new_one_starts() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(key: Key) -> None:
        started.set()
        # A child task of a reconcile has to survive as well.
        await asyncio.gather(release.wait())

    bench = Bench(slow)
    bench.elector.granted.set()
    life = asyncio.create_task(live(bench.parts))
    bench.queue.add(("ml", "a"))
    await started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: bench.queue.closed)
    bench.queue.add(("ml", "b"))
    assert (bench.elector.released, life.done()) == (0, False), "the lease is kept while there is work"
    release.set()
    assert await life == 0
    assert (bench.seen, bench.elector.released) == ([("ml", "a")], 1)


async def test_a_reconcile_that_does_not_end_is_cut_off() -> None:
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def stuck(key: Key) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bench = Bench(stuck)
    bench.elector.granted.set()
    life = asyncio.create_task(live(bench.parts, grace=0.05))
    bench.queue.add(("ml", "a"))
    await started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await life == 0
    assert cancelled.is_set()
    assert bench.elector.released == 1


async def test_a_lost_lease_ends_the_process() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def stuck(key: Key) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bench = Bench(stuck)
    bench.elector.granted.set()
    life = asyncio.create_task(live(bench.parts, grace=60))
    bench.queue.add(("ml", "a"))
    await started.wait()
    bench.elector.lost.set()
    async with asyncio.timeout(5):
        assert await life == 1
    assert cancelled.is_set()
    assert bench.elector.released == 0


async def test_a_part_that_fails_ends_the_process() -> None:
    bench = Bench()
    bench.elector.granted.set()
    life = asyncio.create_task(live(bench.parts))
    await until(lambda: bench.elector.leads)
    bench.watches.set_exception(RuntimeError("a defect"))
    assert await life == 1
    assert bench.elector.released == 1
