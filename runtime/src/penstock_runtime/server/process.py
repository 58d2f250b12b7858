"""The parts of a serving process, put together: loading, watching, draining."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from penstock_runtime.engine.batchable import Batching, try_out
from penstock_runtime.engine.cpu import concurrent_runs, cpu_quota
from penstock_runtime.engine.executor import Executor, load_and_warm
from penstock_runtime.engine.locate import locate_model
from penstock_runtime.engine.session import Session
from penstock_runtime.log import event
from penstock_runtime.protocol.model_config import describe_config
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.server.app import DataApp, State
from penstock_runtime.server.config_dir import ConfigDir
from penstock_runtime.server.feedback.ids import Issuer
from penstock_runtime.server.feedback.intake import Intake
from penstock_runtime.server.feedback.judge import Judge
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.feedback.ledger import Ledger
from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.serving import Serving
from penstock_runtime.server.settings import Settings, SettingsError
from penstock_runtime.server.side_apps import AdminApp, MetricsApp

if TYPE_CHECKING:
    from penstock_runtime.server.grpc.listener import GrpcListener

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class Process:
    """One model, its ports, and their life."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
        """Bind the ports; raises ListenError. `on_ready` is called once the model is loaded and warm."""
        self._settings = settings
        self._on_ready = on_ready
        self._config = ConfigDir(settings.config_dir, settings.feedback)
        self._cohort = self._config.cohort
        self._judged = self._config.feedback
        self._metrics = Metrics(settings.model_name, settings.revision)
        self._tally = Tally(settings.model_name, settings.revision, self._cohort)
        self._keys = Keys(settings.feedback_key_dir)
        self._issuer = Issuer(self._keys, settings.revision, self._cohort)
        self._state = State(settings.model_name)
        self._admin = AdminApp(settings.model_name)
        self._executor: Executor | None = None
        app = DataApp(self._state, self._metrics, settings.serving.max_body_bytes)
        metrics_app = MetricsApp(self._metrics, self._tally)
        self._listeners: list[Listener] = []
        self._grpc: GrpcListener | None = None
        try:
            for each, port in (
                (app, settings.http_port),
                (self._admin, settings.admin_port),
                (metrics_app, settings.metrics_port),
            ):
                self._listeners.append(Listener(each, settings.host, port))
            self._grpc = self._listen_grpc()
        except BaseException:
            self._close()
            raise

    async def run(self, stop: asyncio.Event) -> bool:
        """Serve until `stop` is set, then drain; raises ModelLoadError or SettingsError.

        Returns False if threads may still be loading or running the model: then the process cannot end by
        itself.
        """
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

    def _listen_grpc(self) -> GrpcListener | None:
        settings = self._settings
        if settings.grpc_port is None:
            return None
        # Its libraries take time and memory, which those who switch it off need not pay.
        from penstock_runtime.server.grpc.listener import GrpcListener
        from penstock_runtime.server.grpc.models import Models

        models = Models(self._state, self._metrics, settings.serving.max_queue)
        return GrpcListener(models, settings.host, settings.grpc_port, settings.serving.max_body_bytes,
                            settings.drain_seconds)  # fmt: skip

    def _health_changed(self) -> None:
        if self._grpc is not None:
            self._grpc.changed()

    async def _load(self) -> None:
        settings = self._settings
        start = time.perf_counter()
        file = locate_model(settings.model_path)
        quota = cpu_quota()
        session, warmup = await asyncio.to_thread(load_and_warm, file.path, settings.serving.threads, quota)
        threads = session.threads
        judge = self._judge(session.schema)
        workers = concurrent_runs(quota, threads)
        batching = await self._try_batching(session)
        self._executor = Executor(session, workers=workers, max_queue=settings.serving.max_queue, warmup=warmup,
                                  batching=batching)  # fmt: skip
        serving = Serving(
            name=settings.model_name, version=file.version, schema=session.schema, executor=self._executor,
            judge=judge, issuer=self._issuer, metrics=self._metrics, statistics=self._state.statistics,
            config=self._describe_config(session.schema, threads, workers, batching.max_rows),
            timeout=settings.serving.timeout,
        )  # fmt: skip
        await serving.rehearse()
        self._executor.on_run = self._count_run
        self._admin.intake = Intake(self._keys, judge, Ledger(), self._tally)
        self._state.serving = serving
        self._metrics.model_loaded = 1
        self._metrics.load_seconds = time.perf_counter() - start
        self._health_changed()
        self._on_ready()
        if warmup.failure is not None:
            event(logger, "warm-up with synthetic rows failed; serving all the same",
                  level=logging.WARNING, reason=warmup.failure)  # fmt: skip
        event(logger, "ready", model=settings.model_name, revision=settings.revision, version=file.version,
              cpu_quota=quota, intra_op_threads=threads, workers=workers, warmup_seconds=warmup.seconds,
              inline_elements=self._executor.inline_elements, max_batch_rows=batching.max_rows,
              decision_output=judge.output,
              load_seconds=round(self._metrics.load_seconds, 3))  # fmt: skip

    def _describe_config(self, schema: ModelSchema, threads: int, workers: int, max_rows: int) -> bytes:
        serving = self._settings.serving
        parameters = {
            "threads": threads,
            "max_queue": serving.max_queue,
            "max_batch_rows": max_rows,
            "max_body_bytes": serving.max_body_bytes,
            "timeout_seconds": serving.timeout,
        }
        return orjson.dumps(describe_config(schema, self._settings.model_name, workers, parameters))

    def _count_run(self, rows: int, seconds: float) -> None:
        self._metrics.batch_size.observe(rows)
        self._state.statistics.ran(rows, seconds)

    async def _try_batching(self, session: Session) -> Batching:
        batching = await asyncio.to_thread(try_out, session, self._settings.serving.max_batch_rows)
        if batching.reason is not None:
            event(logger, "requests are not run together", reason=batching.reason)
        return batching

    def _judge(self, schema: ModelSchema) -> Judge:
        """Return the judge as configured; one that decides nothing where the mounted file names no output.

        That file is no part of the revision, so a mistake in it must not end a pod that serves. Raises
        SettingsError if it is the environment that names no output.
        """
        self._judged = self._config.feedback
        try:
            return Judge(schema, self._judged)
        except SettingsError as error:
            if self._judged is self._settings.feedback:
                raise
            event(logger, "labels cannot be compared", level=logging.ERROR, error=str(error))
            return Judge(ModelSchema((), ()), replace(self._judged, output=None))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._metrics.settle()
            self._health_changed()
            self._keys.refresh()
            self._config.refresh()
            if self._config.cohort != self._cohort:
                self._cohort = self._config.cohort
                self._issuer.set_cohort(self._cohort)
                self._tally.start_cohort(self._cohort, int(time.time()))
                event(logger, "cohort changed", cohort=self._cohort)
            serving, intake = self._state.serving, self._admin.intake
            if serving is not None and intake is not None and self._config.feedback != self._judged:
                serving.judge = intake.judge = self._judge(serving.schema)
                event(logger, "feedback changed", decision_output=serving.judge.output)

    async def _drain(self) -> bool:
        """Go out of service step by step; return whether every request was finished."""
        settings = self._settings
        self._state.draining = True
        self._health_changed()
        event(logger, "draining", grace_seconds=settings.drain_seconds, in_flight=self._in_flight)
        await asyncio.sleep(settings.drain_seconds)
        loop = asyncio.get_running_loop()
        data, *others = self._listeners
        deadline = loop.time() + settings.shutdown_seconds
        stopping = [data.stop(deadline)] if self._grpc is None else [data.stop(deadline), self._grpc.stop(deadline)]
        finished = all(await asyncio.gather(*stopping))
        for listener in others:
            await listener.stop(loop.time() + 1.0)
        event(logger, "stopped", finished=finished, cut_off=0 if finished else self._in_flight)
        return finished and self._executor is not None and self._executor.pending == 0

    @property
    def _in_flight(self) -> int:
        return self._state.in_flight + (self._grpc.in_flight if self._grpc is not None else 0)

    def _close(self) -> None:
        if self._grpc is not None:
            self._grpc.close()
        for listener in self._listeners:
            listener.close()
        if self._executor is not None:
            self._executor.close()
