"""The parts of an agent, put together: looking at the upstream, watching, draining."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from penstock_runtime.log import event
from penstock_runtime.server.admin_app import FeedbackApp
from penstock_runtime.server.agent.agent import Agent
from penstock_runtime.server.agent.app import AgentApp
from penstock_runtime.server.agent.settings import AgentSettings
from penstock_runtime.server.agent.upstream import Readiness, Upstream
from penstock_runtime.server.config_dir import ConfigDir
from penstock_runtime.server.draining import drain
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.metrics_app import MetricsApp
from penstock_runtime.server.ports import open_ports
from penstock_runtime.server.security.security import Security
from penstock_runtime.server.traffic import Traffic
from penstock_runtime.server.workers.link import Link

if TYPE_CHECKING:
    from penstock_runtime.server.agent.calls import GrpcUpstream
    from penstock_runtime.server.grpc.listener import GrpcListener

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class AgentProcess:
    """The ports and their life. It needs a running event loop from the start."""

    def __init__(self, settings: AgentSettings) -> None:
        """Bind the ports; raises ListenError, SettingsError."""
        self._settings = settings
        self._config = config = ConfigDir(settings.config_dir, settings.feedback)
        self._link = None if settings.worker is None else Link(settings.worker.link)
        self._keys = Keys(settings.feedback_key_dir, None if self._link is None else self._link.key)
        self._agent = agent = Agent(settings, self._keys, config.feedback, config.cohort)
        self._security = security = Security(settings.security)
        limits = settings.serving
        self._traffic = Traffic(limits, self._outputs)
        self._listeners: list[Listener] = []
        self._grpc: GrpcListener | None = None
        self._grpc_upstream: GrpcUpstream | None = None
        self._readiness = Readiness(settings.upstream, settings.model_name, settings.protocol)
        self._upstream = Upstream(settings.upstream, limits, self._readiness.doubt)
        data = AgentApp(agent, self._upstream, self._readiness, self._traffic, limits)
        admin = FeedbackApp(agent.models, self._traffic.told)
        try:
            self._listeners = open_ports(
                settings, security, security.guard_data(data), security.guard_admin(admin), MetricsApp(agent.models)
            )
            self._listen_grpc()
        except BaseException:
            self._close()
            raise

    async def run(self, stop: asyncio.Event) -> bool:
        """Serve until `stop` is set, then drain; return True: no thread keeps the process."""
        self._began = time.perf_counter()
        self._traffic.look(self._config)
        for listener in self._listeners:
            await listener.start()
        data, admin, metrics = (listener.port for listener in self._listeners)
        if self._grpc is not None:
            self._grpc.start()
        event(logger, "listening", http_port=data, grpc_port=self._grpc and self._grpc.port, admin_port=admin,
              metrics_port=metrics, upstream=str(self._settings.upstream))  # fmt: skip
        following = asyncio.create_task(self._readiness.follow(self._readiness_changed))
        watching = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(stop.wait())
        tasks: list[asyncio.Task[Any]] = [following, watching, stopping]
        if self._link is not None:
            tasks.append(asyncio.create_task(self._link.follow()))
        try:
            done, _ = await asyncio.wait(tasks[:3], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # None of the others ends but by an error, which is told.
                task.result()
            self._agent.draining = True
            self._health_changed()
            settings = self._settings
            stops = () if self._grpc is None else (self._grpc.stop,)
            await drain(
                self._listeners, settings.drain_seconds, settings.shutdown_seconds, lambda: self._agent.in_flight, stops
            )
            return True
        finally:
            for task in tasks:
                task.cancel()
            self._close()

    def _listen_grpc(self) -> None:
        settings = self._settings
        if settings.grpc_port is None or settings.upstream_grpc is None:
            return
        # Its libraries take time and memory, which those who have no gRPC need not pay.
        from penstock_runtime.server.agent.calls import AgentServices, GrpcUpstream
        from penstock_runtime.server.grpc.listener import GrpcListener

        limits = settings.serving
        self._grpc_upstream = GrpcUpstream(settings.upstream_grpc, limits, self._readiness)
        services = AgentServices(self._agent, self._grpc_upstream, self._readiness, self._traffic, limits)
        self._grpc = GrpcListener(services, settings, settings.grpc_port, self._security)

    def _health_changed(self) -> None:
        if self._grpc is not None:
            self._grpc.changed()

    def _outputs(self) -> list[str]:
        schema = self._agent.reader.schema
        return [] if schema is None else [output.name for output in schema.outputs]

    def _readiness_changed(self) -> None:
        metrics, reader = self._agent.model.metrics, self._agent.reader
        loaded, metrics.model_loaded = metrics.model_loaded, int(self._readiness.why_not is None)
        # TensorFlow Serving tells that of one signature only, and may be asked by another.
        schema = self._readiness.schema if self._readiness.protocol == "oip" else None
        if schema != reader.schema:
            reader.schema = schema
            self._traffic.check()
        self._health_changed()
        if loaded or not metrics.model_loaded:
            return
        metrics.loads["ok"] += 1
        if metrics.loads["ok"] == 1:
            metrics.load_seconds = round(time.perf_counter() - self._began, 3)
            event(logger, "ready", models=list(self._agent.models), revision=self._settings.revision,
                  load_seconds=metrics.load_seconds)  # fmt: skip
            if self._link is not None:
                # Nobody has to wait for the others: requests pass before an agent knows its upstream, too.
                self._link.say_loaded()

    async def _watch(self) -> None:
        config, agent = self._config, self._agent
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            agent.model.metrics.settle()
            self._keys.refresh()
            self._security.refresh()
            cohort, feedback = config.cohort, config.feedback
            config.refresh()
            self._traffic.look(config)
            if config.cohort != cohort:
                agent.set_cohort(config.cohort, int(time.time()))
                event(logger, "cohort changed", cohort=config.cohort)
            if config.feedback != feedback:
                agent.set_feedback(config.feedback)

    def _close(self) -> None:
        if self._grpc is not None:
            self._grpc.close()
        if self._grpc_upstream is not None:
            self._grpc_upstream.close()
        for listener in self._listeners:
            listener.close()
        self._traffic.close()
        self._upstream.close()
        self._readiness.close()
        if self._link is not None:
            self._link.close()
