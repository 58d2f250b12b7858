"""A serving process from its start to its drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from penstock_runtime import termination
from penstock_runtime.engine.cpu import concurrent_runs, cpu_quota, intra_op_threads
from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.executor import Executor
from penstock_runtime.engine.locate import ModelFile, locate_model
from penstock_runtime.engine.session import Session, Warmup
from penstock_runtime.log import event
from penstock_runtime.server.app import DataApp, State
from penstock_runtime.server.feedback.ids import Issuer
from penstock_runtime.server.feedback.intake import Intake
from penstock_runtime.server.feedback.judge import Judge
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.feedback.ledger import Ledger
from penstock_runtime.server.feedback.tally import NO_COHORT, Tally
from penstock_runtime.server.listener import Listener, ListenError
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.serving import Serving
from penstock_runtime.server.settings import Settings, SettingsError
from penstock_runtime.server.side_apps import AdminApp, MetricsApp

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
_FAILURES = {
    ModelLoadError: "ModelLoadFailed",
    SettingsError: "InvalidConfiguration",
    ListenError: "InvalidConfiguration",
}


class Process:
    """The parts of one serving process."""

    def __init__(self, settings: Settings) -> None:
        """Bind the ports; raises ListenError."""
        self._settings = settings
        self._cohort = read_cohort(settings.config_dir)
        self._metrics = Metrics(settings.model_name, settings.revision)
        self._tally = Tally(settings.model_name, settings.revision, self._cohort)
        self._keys = Keys(settings.feedback_key_dir)
        self._issuer = Issuer(self._keys, settings.revision, self._cohort)
        self._state = State(settings.model_name)
        self._admin = AdminApp(settings.model_name)
        self._executor: Executor | None = None
        app = DataApp(self._state, self._metrics, settings.serving.max_body_bytes)
        self._data = Listener(app, settings.host, settings.http_port)
        self._side = [
            Listener(self._admin, settings.host, settings.admin_port),
            Listener(MetricsApp(self._metrics, self._tally), settings.host, settings.metrics_port),
        ]

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT and drain; raises ModelLoadError or SettingsError."""
        stop = _stop_signal()
        for listener in (self._data, *self._side):
            await listener.start()
        event(logger, "listening", http_port=self._data.port, admin_port=self._side[0].port,
              metrics_port=self._side[1].port)  # fmt: skip
        watcher = asyncio.create_task(self._watch())
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                leave_at_once()
            loading.result()
            await stopping
            if not await self._drain():
                leave_at_once()
        finally:
            for task in (watcher, loading, stopping):
                task.cancel()

    async def _load(self) -> None:
        settings = self._settings
        start = time.perf_counter()
        file = locate_model(settings.model_path)
        quota = cpu_quota()
        threads = intra_op_threads(settings.serving.threads, quota)
        session, warmup = await asyncio.to_thread(_load_and_warm, file, threads)
        judge = Judge(session.schema, settings.feedback)
        workers = concurrent_runs(quota, threads)
        self._executor = Executor(session, workers=workers, max_queue=settings.serving.max_queue, warmup=warmup)
        self._admin.intake = Intake(self._keys, judge, Ledger(settings.feedback.window), self._tally)
        serving = Serving(
            name=settings.model_name, version=file.version, schema=session.schema, executor=self._executor,
            judge=judge, issuer=self._issuer, metrics=self._metrics, timeout=settings.serving.timeout,
        )  # fmt: skip
        await serving.rehearse()
        self._state.serving = serving
        self._metrics.model_loaded = 1
        self._metrics.load_seconds = time.perf_counter() - start
        # What lives now lives on: the collector need not walk it again during requests.
        gc.collect()
        gc.freeze()
        if warmup.failure is not None:
            event(logger, "warm-up with synthetic rows failed; serving all the same",
                  level=logging.WARNING, reason=warmup.failure)  # fmt: skip
        event(logger, "ready", model=settings.model_name, revision=settings.revision, version=file.version,
              cpu_quota=quota, intra_op_threads=threads, workers=workers, row_seconds=warmup.seconds,
              inline_elements=self._executor.inline_elements, decision_output=judge.output,
              load_seconds=round(self._metrics.load_seconds, 3))  # fmt: skip

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._keys.refresh()
            cohort = read_cohort(self._settings.config_dir)
            if cohort != self._cohort:
                self._cohort = cohort
                self._issuer.set_cohort(cohort)
                self._tally.start_cohort(cohort, int(time.time()))
                event(logger, "cohort changed", cohort=cohort)

    async def _drain(self) -> bool:
        """Go out of service step by step; return whether every request was finished."""
        settings = self._settings
        self._state.draining = True
        event(logger, "draining", grace_seconds=settings.drain_seconds, in_flight=self._state.in_flight)
        await asyncio.sleep(settings.drain_seconds)
        deadline = asyncio.get_running_loop().time() + settings.shutdown_seconds
        finished = await self._data.stop(deadline)
        for listener in self._side:
            await listener.stop(asyncio.get_running_loop().time() + 1.0)
        event(logger, "stopped", finished=finished, cut_off=0 if finished else self._state.in_flight)
        if self._executor is not None and finished:
            self._executor.close()
        return finished


def serve(settings: Settings) -> int:
    """Run a serving process to its end and return its exit code: 0 after a drain, 1 if it cannot serve."""
    import uvloop

    try:
        process = Process(settings)
        uvloop.run(process.run())
    except (ModelLoadError, SettingsError, ListenError) as error:
        fail(settings.termination_log, _FAILURES[type(error)], str(error))
        return 1
    return 0


def fail(termination_log: Path | None, reason: str, message: str) -> None:
    """Tell people and the operator why the process cannot serve."""
    event(logger, "cannot serve", level=logging.ERROR, reason=reason, error=message)
    termination.write(termination_log, {"reason": reason, "message": message})


def leave_at_once() -> NoReturn:
    """End the process without waiting for threads that load or run a model."""
    logging.shutdown()
    os._exit(0)


def read_cohort(folder: Path) -> str:
    """Return the rollout's id in the file `cohort`, or "none"."""
    with suppress(OSError, UnicodeDecodeError):
        return (folder / "cohort").read_text().strip()[:128] or NO_COHORT
    return NO_COHORT


def _load_and_warm(file: ModelFile, threads: int) -> tuple[Session, Warmup]:
    session = Session(file.path, threads)
    return session, session.warm_up()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(_signal: int) -> None:
        if stop.is_set() and _signal == signal.SIGINT:
            os._exit(130)  # a second Ctrl-C means now
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop
