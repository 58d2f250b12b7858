"""What comes of a reconcile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from penstock.ports import ClusterError, Conflict
from penstock.shell import workers as workers_module
from penstock.shell.queue import WorkQueue
from penstock.shell.telemetry import Telemetry
from penstock.shell.workers import Key, Workers
from tests.fakes.clock import START, FakeClock
from tests.fakes.timer import FakeTimer

KEY = ("ml", "fraud")


class Scripted:
    """A reconciler that does what it is told, once for each call."""

    def __init__(self, *steps: Callable[[], Awaitable[float | None]] | Exception | float | None) -> None:
        self.steps = list(steps)
        self.keys: list[Key] = []

    async def reconcile(self, key: Key) -> float | None:
        self.keys.append(key)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if callable(step):
            return await step()
        return step


class Bench:
    def __init__(self, *steps: Callable[[], Awaitable[float | None]] | Exception | float | None) -> None:
        self.timer = FakeTimer()
        self.clock = FakeClock()
        self.telemetry = Telemetry()
        self.queue: WorkQueue[Key] = WorkQueue(self.timer, jitter=lambda: 0.5)
        self.reconciler = Scripted(*steps)
        self.workers = Workers(self.queue, self.reconciler, self.clock, self.telemetry, count=2)

    async def settle(self) -> None:
        """Run until nothing moves."""
        for _ in range(20):
            await asyncio.sleep(0)

    def count(self, result: str) -> float:
        return self.telemetry.registry.get_sample_value("penstock_reconcile_total", {"result": result}) or 0.0

    async def __aenter__(self) -> Bench:
        self.task = asyncio.create_task(self.workers.run())
        self.queue.add(KEY)
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.queue.shut_down()
        await self.task


async def test_nothing_due_is_not_run_again() -> None:
    async with Bench(None) as bench:
        bench.timer.advance(10_000)
        await bench.settle()
        assert bench.reconciler.keys == [KEY]
        assert bench.count("success") == 1


async def test_a_wake_up_is_by_the_wall_clock_and_not_early() -> None:
    async with Bench(START + 30, None) as bench:
        bench.timer.advance(30)
        await bench.settle()
        assert len(bench.reconciler.keys) == 1
        bench.timer.advance(0.02)
        await bench.settle()
        assert len(bench.reconciler.keys) == 2


async def test_a_wake_up_in_the_past_is_now() -> None:
    async with Bench(START - 5, None) as bench:
        bench.timer.advance(0.02)
        await bench.settle()
        assert len(bench.reconciler.keys) == 2


async def test_a_far_wake_up_is_looked_at_again() -> None:
    async with Bench(START + 86_400, None) as bench:
        bench.timer.advance(workers_module.HORIZON + 1)
        await bench.settle()
        assert len(bench.reconciler.keys) == 2


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Conflict("changed"), "conflict"),
        (ClusterError("down"), "error"),
        (ZeroDivisionError("a defect"), "defect"),
    ],
)
async def test_errors_back_off_and_success_forgets_them(error: Exception, result: str) -> None:
    async with Bench(error, error, None, error, None) as bench:
        bench.timer.advance(0.5)
        await bench.settle()
        assert len(bench.reconciler.keys) == 2
        bench.timer.advance(0.9)
        await bench.settle()
        assert len(bench.reconciler.keys) == 2
        bench.timer.advance(0.1)
        await bench.settle()
        assert len(bench.reconciler.keys) == 3
        bench.queue.add(KEY)
        await bench.settle()
        bench.timer.advance(0.5)
        await bench.settle()
        assert len(bench.reconciler.keys) == 5
        assert bench.count(result) == 3


async def test_a_defect_tells_its_trace_and_the_object(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with Bench(ZeroDivisionError("a defect")):
            pass
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_a_reconcile_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "LONGEST", 0.01)
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Bench(hang, None) as bench:
        async with asyncio.timeout(5):
            await ended.wait()
        await bench.settle()
        assert bench.count("timeout") == 1
        bench.timer.advance(0.5)
        await bench.settle()
        assert len(bench.reconciler.keys) == 2


async def test_one_object_does_not_hold_up_the_others() -> None:
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    async with Bench(wait, None, None) as bench:
        bench.queue.add(("ml", "other"))
        bench.queue.add(KEY)
        await bench.settle()
        assert bench.reconciler.keys == [KEY, ("ml", "other")]
        release.set()
        await bench.settle()
        assert bench.reconciler.keys == [KEY, ("ml", "other"), KEY]


async def test_shut_down_lets_a_running_reconcile_finish() -> None:
    release = asyncio.Event()
    finished = []

    async def wait() -> None:
        await release.wait()
        finished.append(True)

    bench = Bench(wait)
    async with bench:
        bench.queue.shut_down()
        await bench.settle()
        assert not bench.task.done()
        release.set()
        await bench.task
        assert finished == [True]
