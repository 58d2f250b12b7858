"""The parts of a serving process, put together: loading, watching, draining."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from penstock_runtime.log import event
from penstock_runtime.server.admin_app import AdminApp
from penstock_runtime.server.app import DataApp
from penstock_runtime.server.config_dir import ConfigDir
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.forward.relay import Forwarder
from penstock_runtime.server.forward.setting import parse_forwarding
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.metrics_app import MetricsApp
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.settings import Settings, SettingsError
from penstock_runtime.server.shadow.setting import Shadowing, parse_shadowing
from penstock_runtime.server.shadow.shadower import Shadower
from penstock_runtime.server.told import Told

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class Process:
    """The models, three ports, and their life."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
        """Bind the ports; raises ListenError. `on_ready` is called once the models are loaded and warm."""
        self._settings = settings
        self._on_ready = on_ready
        self._config = ConfigDir(settings.config_dir, settings.feedback)
        self._keys = Keys(settings.feedback_key_dir)
        self._repository = Repository(settings, self._keys, self._config.feedback, self._config.cohort)
        limits = settings.serving
        self._forwarder = Forwarder(limits.max_body_bytes, limits.timeout)
        self._shadower = Shadower(limits.max_body_bytes, limits.timeout)
        self._told: dict[str, Told[Any]] = {
            "forward": Told("forward", parse_forwarding, self._forwarder.apply, self._forwarder.counts),
            "shadow": Told("shadow", self._parse_shadowing, self._shadower.apply, self._shadower.counts),
        }
        self._listeners: list[Listener] = []
        data = DataApp(self._repository, limits.max_body_bytes, self._forwarder, self._shadower)
        try:
            for app, port in (
                (data, settings.http_port),
                (AdminApp(self._repository, settings.model_control, self._told), settings.admin_port),
                (MetricsApp(self._repository), settings.metrics_port),
            ):
                self._listeners.append(Listener(app, settings.host, port))
        except BaseException:
            self._close()
            raise

    async def run(self, stop: asyncio.Event) -> bool:
        """Serve until `stop` is set, then drain; raises ModelLoadError or SettingsError.

        Returns False if threads may still be loading or running a model: then the process cannot end by
        itself.
        """
        self._look_at_told()
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
        try:
            self._check_shadowing(self._shadower.setting)
        except SettingsError as error:
            # It could not be said while the models' outputs were not known.
            event(logger, "a tolerance is for no output of the model", level=logging.ERROR, error=str(error))
        self._on_ready()
        event(logger, "ready", models=list(self._repository.models), revision=self._settings.revision,
              load_seconds=round(time.perf_counter() - start, 3))  # fmt: skip

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._keys.refresh()
            cohort, feedback = self._config.cohort, self._config.feedback
            self._config.refresh()
            self._look_at_told()
            if self._config.cohort != cohort:
                self._repository.set_cohort(self._config.cohort, int(time.time()))
                event(logger, "cohort changed", cohort=self._config.cohort)
            if self._config.feedback != feedback:
                self._repository.set_feedback(self._config.feedback)

    def _look_at_told(self) -> None:
        for name, told in self._told.items():
            told.look(self._config.document(f"{name}.json"))

    def _parse_shadowing(self, spec: Mapping[str, Any]) -> Shadowing | None:
        return self._check_shadowing(parse_shadowing(spec))

    def _check_shadowing(self, setting: Shadowing | None) -> Shadowing | None:
        """Return `setting`; raises SettingsError if it has a tolerance for an output that no loaded model has."""
        servings = list(self._repository.servings)
        if setting is not None and servings:
            setting.check_outputs({output.name: None for each in servings for output in each.schema.outputs})
        return setting

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
        self._forwarder.close()
        self._shadower.close()
        self._repository.close()
