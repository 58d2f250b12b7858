"""The parts of a serving process, put together: loading, watching, draining."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from penstock_runtime.log import event
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.server.admin_app import AdminApp
from penstock_runtime.server.app import DataApp
from penstock_runtime.server.config_dir import ConfigDir
from penstock_runtime.server.direct import Direct
from penstock_runtime.server.draining import drain
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.metrics_app import MetricsApp
from penstock_runtime.server.observing.observer import Observer, Observing
from penstock_runtime.server.page import app as page
from penstock_runtime.server.page.app import PageApp
from penstock_runtime.server.ports import open_ports
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.security.security import Security
from penstock_runtime.server.settings import Settings
from penstock_runtime.server.traffic import Traffic
from penstock_runtime.server.workers.link import Link

if TYPE_CHECKING:
    from penstock_runtime.server.grpc.listener import GrpcListener

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class Process:
    """The models, the ports, and their life."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
        """Bind the ports; raises ListenError, SettingsError. `on_ready` is called once the models are loaded."""
        self._settings = settings
        self._on_ready = on_ready
        self._config = ConfigDir(settings.config_dir, settings.feedback)
        self._link = None if settings.worker is None else Link(settings.worker.link)
        self._keys = Keys(settings.feedback_key_dir, None if self._link is None else self._link.key)
        self._repository = Repository(settings, self._keys, self._config.feedback, self._config.cohort)
        self._security = security = Security(settings.security)
        self._observing = Observing(settings.observing, settings.revision)
        self._traffic = traffic = Traffic(settings.serving, self._outputs)
        traffic.told["logging"] = self._observing.told
        self._listeners: list[Listener] = []
        self._grpc: GrpcListener | None = None
        limit = settings.serving.max_body_bytes
        data = security.guard_data(
            DataApp(self._repository, limit, traffic.forwarder, traffic.shadower, security.tokens is not None)
        )
        data = Observer(data, self._observing)
        direct = Direct(self._repository, limit, traffic.forwarder, traffic.shadower, security.allows, self._observing)
        admin = AdminApp(
            self._repository, settings.model_control, traffic.told, tokens=security.admin_tokens is not None
        )
        guarded = security.guard_admin(PageApp(self._repository, settings.revision, admin), page.PATHS)
        try:
            self._listeners = open_ports(settings, security, data, guarded, MetricsApp(self._repository.models), direct)
            self._grpc = self._listen_grpc()
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
        self._traffic.look(self._config)
        for listener in self._listeners:
            await listener.start()
        data, admin, metrics = (listener.port for listener in self._listeners)
        if self._grpc is not None:
            self._grpc.start()
        event(logger, "listening", http_port=data, grpc_port=self._grpc and self._grpc.port, admin_port=admin,
              metrics_port=metrics)  # fmt: skip
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

    def _outputs(self) -> Collection[str]:
        return {output.name: None for each in self._repository.servings for output in each.schema.outputs}

    def _listen_grpc(self) -> GrpcListener | None:
        settings = self._settings
        if settings.grpc_port is None:
            return None
        # Its libraries take time and memory, which those who switch it off need not pay.
        from penstock_runtime.server.grpc.forwarding import Forwarding
        from penstock_runtime.server.grpc.inference import Inferences
        from penstock_runtime.server.grpc.listener import GrpcListener
        from penstock_runtime.server.grpc.observing import observe
        from penstock_runtime.server.grpc.services import Services
        from penstock_runtime.server.grpc.shadowing import Shadowing

        inferences = Inferences(
            self._repository, Forwarding(self._traffic.forwarder), Shadowing(self._traffic.shadower)
        )
        observe(inferences, self._observing)
        return GrpcListener(Services(inferences), settings, settings.grpc_port, self._security)

    def _health_changed(self) -> None:
        if self._grpc is not None:
            self._grpc.changed()

    async def _load(self) -> None:
        start = time.perf_counter()
        await self._repository.load_all()
        self._traffic.check()
        self._health_changed()
        self._on_ready()
        if self._link is not None:
            await self._link.wait_for_all()
            self._end_with_supervisor = asyncio.create_task(self._link.follow())
            self._repository.waits_for_others = False
        event(logger, "ready", models=list(self._repository.models), revision=self._settings.revision,
              load_seconds=round(time.perf_counter() - start, 3))  # fmt: skip

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._repository.settle()
            self._health_changed()
            self._keys.refresh()
            self._security.refresh()
            cohort, feedback = self._config.cohort, self._config.feedback
            self._config.refresh()
            self._traffic.look(self._config)
            if self._config.cohort != cohort:
                self._repository.set_cohort(self._config.cohort, int(time.time()))
                event(logger, "cohort changed", cohort=self._config.cohort)
            if self._config.feedback != feedback:
                self._repository.set_feedback(self._config.feedback)

    async def _drain(self) -> bool:
        """Go out of service step by step; return whether every request was finished."""
        settings, repository = self._settings, self._repository
        repository.draining = True
        self._health_changed()
        stops = () if self._grpc is None else (self._grpc.stop,)
        finished = await drain(
            self._listeners, settings.drain_seconds, settings.shutdown_seconds, lambda: self._in_flight, stops
        )
        return finished and repository.pending == 0

    @property
    def _in_flight(self) -> int:
        return self._repository.in_flight + (self._grpc.in_flight if self._grpc is not None else 0)

    def _close(self) -> None:
        if self._grpc is not None:
            self._grpc.close()
        for listener in self._listeners:
            listener.close()
        self._traffic.close()
        self._repository.close()
        self._observing.close()
        if self._link is not None:
            self._link.close()
