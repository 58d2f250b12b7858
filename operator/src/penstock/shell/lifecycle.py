"""The life of the process: start, lead, and end without leaving work half done."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.adapters.lease import LeaseLost

from .http import Health
from .queue import WorkQueue
from .telemetry import Telemetry
from .workers import Key

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds that running reconciles get to finish."""


class Leads(Protocol):
    """The elector."""

    @property
    def leads(self) -> bool:
        """The lease is ours."""

    async def acquire(self) -> None:
        """Return when it is."""

    async def hold(self) -> None:
        """LeaseLost when it is not any more."""

    async def release(self) -> None:
        """Give it up."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs: on every replica, and while leading only."""

    queue: WorkQueue[Key]
    elector: Leads
    health: Health
    telemetry: Telemetry
    watch: Callable[[], Awaitable[None]]
    work: Callable[[], Awaitable[None]]
    resync: Callable[[], Awaitable[None]]


async def live(parts: Parts, *, grace: float = GRACE) -> int:
    """Run until a signal or a failure; the exit status of the process: 0 after SIGTERM, 1 otherwise."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    stop = asyncio.create_task(stopped.wait(), name="stop")
    background = [_task(parts.health.beat(parts.telemetry), "heartbeat"), _task(parts.watch(), "watches")]
    lead = asyncio.create_task(_lead(parts, stopped, grace), name="leader")
    status = 0
    try:
        done, _ = await asyncio.wait({stop, lead, *background}, return_when=asyncio.FIRST_COMPLETED)
        if stop in done:
            log.info("stopping")
            parts.queue.shut_down()
            await asyncio.wait({lead}, timeout=grace + 1)
        status = _status([task for task in (lead, *background) if task.done()])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        for task in (stop, lead, *background):
            task.cancel()
        await asyncio.gather(stop, lead, *background, return_exceptions=True)
        await parts.elector.release()
    return status


async def _lead(parts: Parts, stopped: asyncio.Event, grace: float) -> None:
    """Wait for the lease, work while it is held, and let the work end before it is given up."""
    acquire = _task(parts.elector.acquire(), "lease")
    try:
        await _first(acquire, _task(stopped.wait(), "stop"))
    finally:
        acquire.cancel()
    if stopped.is_set():
        return
    parts.telemetry.leader.set(1)
    hold = _task(parts.elector.hold(), "lease")
    work = _task(parts.work(), "workers")
    resync = _task(parts.resync(), "resync")
    ending = _task(_after(stopped, grace), "grace")
    tasks = (hold, work, resync, ending)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if ending in done:
            log.warning("reconciles that run longer than %.0f s are cut off; they go on after a restart", grace)
        for task in done:
            task.result()
        if not stopped.is_set():
            raise RuntimeError(f"ended before its time: {', '.join(task.get_name() for task in done)}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        parts.telemetry.leader.set(0)


async def _after(stopped: asyncio.Event, grace: float) -> None:
    await stopped.wait()
    await asyncio.sleep(grace)


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait for one of them, raise what it raised, and end the last one."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    tasks[-1].cancel()
    for task in done:
        task.result()


def _task(coroutine: Awaitable[Any], name: str) -> asyncio.Task[Any]:
    async def run() -> Any:
        return await coroutine

    return asyncio.create_task(run(), name=name)


def _status(ended: list[asyncio.Task[Any]]) -> int:
    """0 when nothing failed. Says why otherwise."""
    status = 0
    for task in ended:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LeaseLost):
            log.error("ending: %s", error)
            status = 1
        elif error is not None:
            log.error("ending: %s failed", task.get_name(), exc_info=error)
            status = 1
    return status
