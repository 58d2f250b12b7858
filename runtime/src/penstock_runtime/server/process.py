"""The parts of a serving process, put together: loading, watching, draining."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable

from penstock_runtime.log import event
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.server.admin_app import AdminApp
from penstock_runtime.server.app import DataApp
from penstock_runtime.server.config_dir import ConfigDir
from penstock_runtime.server.direct import Direct
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.metrics_app import MetricsApp
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.settings import Settings
from penstock_runtime.server.sockets import bind
from penstock_runtime.server.workers.link import Link

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class Process:
    """The models, three ports, and their life."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
        """Bind the ports; raises ListenError. `on_ready` is called once the models are loaded and warm."""
        self._settings = settings
        self._on_ready = on_ready
        self._config = ConfigDir(settings.config_dir, settings.feedback)
        self._link = None if settings.worker is None else Link(settings.worker.link)
        self._keys = Keys(settings.feedback_key_dir, None if self._link is None else self._link.key)
        self._repository = Repository(settings, self._keys, self._config.feedback, self._config.cohort)
        self._listeners: list[Listener] = []
        try:
            limit = settings.serving.max_body_bytes
            ports = settings.worker or (settings.http_port, settings.admin_port, settings.metrics_port)
            direct = Direct(self._repository, limit)
            for app, port, short in (
                (DataApp(self._repository, limit), ports[0], direct),
                (AdminApp(self._repository, settings.model_control), ports[1], None),
                (MetricsApp(self._repository), ports[2], None),
            ):
                bound = socket.socket(fileno=port) if settings.worker else bind(settings.host, port)
                self._listeners.append(Listener(app, bound, short))
        except BaseException:
            self._close()
            raise

    @property
    def ports(self) -> dict[str, int]:
        """The ports that are listened on, by what for."""
        return dict(zip(("http", "admin", "metrics"), (each.port for each in self._listeners), strict=False))

    @property
    def schemas(self) -> list[tuple[str, ModelSchema]]:
        """The models that are loaded and what they take and give."""
        models = self._repository.models.values()
        return [(model.name, model.current.schema) for model in models if model.current is not None]

    async def run(self, stop: asyncio.Event) -> bool:
        """Serve until `stop` is set, then drain; raises ModelLoadError or SettingsError.

        Returns False if threads may still be loading or running a model: then the process cannot end by
        itself.
        """
        for listener in self._listeners:
            await listener.start()
        data, admin, metrics = (listener.port for listener in self._listeners)
        event(logger, "listening", http_port=data, admin_port=admin, metrics_port=metrics)
        watching = asyncio.create_task(self._watch())
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                return False
            loading.result()
            await stopping
            return await self._drain()
        finally:
            for task in (watching, loading, stopping):
                task.cancel()
            self._close()

    async def _load(self) -> None:
        start = time.perf_counter()
        await self._repository.load_all()
        self._on_ready()
        if self._link is not None:
            await self._link.wait_for_all()
            self._end_with_supervisor = asyncio.create_task(self._follow(self._link))
            self._repository.waits_for_others = False
        event(logger, "ready", models=list(self._repository.models), revision=self._settings.revision,
              load_seconds=round(time.perf_counter() - start, 3))  # fmt: skip

    async def _follow(self, link: Link) -> None:
        await link.wait_for_end()
        os.kill(os.getpid(), signal.SIGTERM)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._keys.refresh()
            cohort, feedback = self._config.cohort, self._config.feedback
            self._config.refresh()
            if self._config.cohort != cohort:
                self._repository.set_cohort(self._config.cohort, int(time.time()))
                event(logger, "cohort changed", cohort=self._config.cohort)
            if self._config.feedback != feedback:
                self._repository.set_feedback(self._config.feedback)

    async def _drain(self) -> bool:
        """Go out of service step by step; return whether every request was finished."""
        settings, repository = self._settings, self._repository
        repository.draining = True
        event(logger, "draining", grace_seconds=settings.drain_seconds, in_flight=repository.in_flight)
        await asyncio.sleep(settings.drain_seconds)
        loop = asyncio.get_running_loop()
        data, *others = self._listeners
        finished = await data.stop(loop.time() + settings.shutdown_seconds)
        for listener in others:
            await listener.stop(loop.time() + 1.0)
        event(logger, "stopped", finished=finished, cut_off=0 if finished else repository.in_flight)
        return finished and repository.pending == 0

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._repository.close()
        if self._link is not None:
            self._link.close()
