"""Keeps a watcher running: starts it when our types are there, again when it ended, and anew when types appear."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.core.objects import MODEL_DEPLOYMENT, Kind
from penstock.ports import ClusterError

log = logging.getLogger(__name__)


class Serves(Protocol):
    """The part of the API server that knows its types."""

    async def serves(self, kind: Kind, namespace: str = "") -> bool:
        """Whether the type is installed."""


class Watches(Protocol):
    """One run of the informer."""

    @property
    def ready(self) -> bool:
        """It watches."""

    def start(self) -> asyncio.Future[None]:
        """Start; done when it has ended."""

    def stop(self) -> None:
        """End it."""


class Watching:
    """The informer's supervisor."""

    def __init__(
        self,
        cluster: Serves,
        make: Callable[[Sequence[Kind]], Watches],
        children: Sequence[Kind],
        namespaces: Sequence[str],
        *,
        look_again: float = 60.0,
        backoff: tuple[float, float] = (1.0, 30.0),
    ) -> None:
        """`look_again`: seconds between two looks for types that have been installed since."""
        self._cluster = cluster
        self._make = make
        self._children = tuple(children)
        self._namespace = namespaces[0] if namespaces else ""
        self._look_again = look_again
        self._backoff = backoff
        self._watcher: Watches | None = None

    @property
    def ready(self) -> bool:
        """Events arrive."""
        return self._watcher is not None and self._watcher.ready

    async def run(self) -> None:
        """Watch for ever."""
        first, longest = self._backoff
        delay = first
        while True:
            try:
                kinds = await self._installed()
                if MODEL_DEPLOYMENT in kinds:
                    await self._watch(kinds)
                    delay = first
                    continue
                log.error("the API server knows no ModelDeployment: install the CRDs of the chart")
            except ClusterError as exc:
                log.warning("the types to watch are not known yet: %s", exc)
            except Exception as exc:  # noqa: BLE001 - kopf ends with errors of many kinds
                log.warning("the watches ended, starting them again in %.0f s: %r", delay, exc)
            await asyncio.sleep(delay)
            delay = min(delay * 2, longest)

    async def _installed(self) -> list[Kind]:
        kinds = (MODEL_DEPLOYMENT, *self._children)
        return [kind for kind in kinds if await self._cluster.serves(kind, self._namespace)]

    async def _watch(self, kinds: list[Kind]) -> None:
        """Return when other types are there than these; raises when the watcher ended."""
        watcher = self._watcher = self._make(kinds)
        ended = watcher.start()
        try:
            while True:
                done, _ = await asyncio.wait({ended}, timeout=self._look_again)
                if done:
                    ended.result()
                    raise RuntimeError("the watcher ended without a reason")
                try:
                    now = await self._installed()
                except ClusterError:
                    continue
                if now != kinds:
                    log.info("the installed types changed: watching %s", ", ".join(kind.kind for kind in now))
                    return
        finally:
            watcher.stop()
            self._watcher = None
            if not ended.done():
                await asyncio.wait({ended}, timeout=5.0)
