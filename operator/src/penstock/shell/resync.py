"""Lists all ModelDeployments now and then: what a watch has missed is found, what is gone is forgotten."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from penstock.core.objects import MODEL_DEPLOYMENT
from penstock.ports import Clock, Cluster, ClusterError

from .queue import WorkQueue
from .telemetry import Telemetry
from .workers import Key

log = logging.getLogger(__name__)

RETRY = 10.0
SPREAD = 0.1
"""The part of the period over which the keys of one listing are spread."""


class Resync:
    """A loop beside the watches."""

    def __init__(
        self,
        cluster: Cluster,
        queue: WorkQueue[Key],
        clock: Clock,
        telemetry: Telemetry,
        *,
        namespaces: Sequence[str],
        period: float,
    ) -> None:
        """`namespaces` empty for all; `period` in seconds."""
        self._cluster = cluster
        self._queue = queue
        self._clock = clock
        self._telemetry = telemetry
        self._namespaces = tuple(namespaces) or ("",)
        self._period = period
        self._known: set[Key] = set()

    async def run(self) -> None:
        """List for ever; at once the first time."""
        spread = 0.0
        while True:
            try:
                await self.once(spread)
                wait = self._period
                spread = self._period * SPREAD
            except ClusterError as exc:
                log.warning("the resync failed, trying again in %.0f s: %s", RETRY, exc)
                wait = RETRY
            await asyncio.sleep(wait)

    async def once(self, spread: float = 0.0) -> None:
        """List, queue what is there over the next `spread` seconds, and forget what is not."""
        found: set[Key] = set()
        for namespace in self._namespaces:
            for obj in await self._cluster.list(MODEL_DEPLOYMENT, namespace, {}):
                found.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))
        for key in sorted(found):
            self._queue.add_after(key, spread * random.random())  # noqa: S311
        for key in self._known - found:
            self._queue.drop(key)
        self._known = found
        self._telemetry.objects.set(len(found))
        self._telemetry.resynced.set(self._clock.now())
