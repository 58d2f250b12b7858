"""Takes keys from the queue, reconciles them, and puts them back with what came of it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Protocol

from penstock.ports import Clock, ClusterError, Conflict

from .queue import ShutDown, WorkQueue
from .telemetry import Telemetry, log_context

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name of a ModelDeployment."""

LONGEST = 180.0
"""Seconds that one reconcile may take."""
HORIZON = 600.0
"""Seconds after which a wake-up is looked at again: it is by the wall clock, and timers are not."""


class Reconciles(Protocol):
    """What the workers drive."""

    async def reconcile(self, key: Key) -> float | None:
        """One reconcile; the unix time of the next one that is due by itself, None for none."""


class Workers:
    """A fixed number of workers on one queue."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        reconciler: Reconciles,
        clock: Clock,
        telemetry: Telemetry,
        *,
        count: int = 8,
    ) -> None:
        """`count` of them."""
        self._queue = queue
        self._reconciler = reconciler
        self._clock = clock
        self._telemetry = telemetry
        self._count = count

    async def run(self) -> None:
        """Work until the queue is shut down and the last reconcile has ended."""
        await asyncio.gather(*(self._work() for _ in range(self._count)))

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except ShutDown:
                return
            try:
                await self._one(key)
            finally:
                self._queue.done(key)

    async def _one(self, key: Key) -> None:
        namespace, name = key
        started = time.monotonic()
        with log_context(namespace=namespace, name=name, reconcile=uuid.uuid4().hex[:8]):
            result = await self._outcome(key)
        self._telemetry.reconciled(result, time.monotonic() - started)

    async def _outcome(self, key: Key) -> str:
        try:
            async with asyncio.timeout(LONGEST):
                wake = await self._reconciler.reconcile(key)
        except Conflict as exc:
            delay = self._queue.retry(key)
            log.info("looking again in %.1f s: %s", delay, exc)
            return "conflict"
        except ClusterError as exc:
            delay = self._queue.retry(key)
            log.warning("trying again in %.1f s: %s", delay, exc)
            return "error"
        except TimeoutError:
            delay = self._queue.retry(key)
            log.error(
                "the reconcile took longer than %.0f s and was stopped; trying again in %.1f s",
                LONGEST,
                delay,
            )
            return "timeout"
        except Exception:
            # One object must not end the work on all others. The trace is in the log, the count in the metrics.
            delay = self._queue.retry(key)
            log.exception("a defect of the operator: the reconcile failed; trying again in %.1f s", delay)
            return "defect"
        self._queue.forget(key)
        if wake is None:
            return "success"
        # Not before the time that was asked for: a moment early would find nothing due.
        self._queue.add_after(key, min(max(wake - self._clock.now(), 0.0) + 0.01, HORIZON))
        return "requeue"
