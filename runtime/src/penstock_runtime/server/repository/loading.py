"""One version of a model brought into service: loaded, warmed, tried, tested, before anyone is answered by it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import orjson

from penstock_runtime.engine.batchable import Batching, try_out
from penstock_runtime.engine.compute import CPU
from penstock_runtime.engine.cpu import concurrent_runs, cpu_quota
from penstock_runtime.engine.executor import Executor, load_and_warm
from penstock_runtime.engine.locate import ModelFile
from penstock_runtime.engine.session import Session, Warmup
from penstock_runtime.log import event
from penstock_runtime.protocol.model_config import describe_config
from penstock_runtime.server.feedback.ids import Issuer
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.repository.golden import rehearse_golden
from penstock_runtime.server.repository.judging import Judging
from penstock_runtime.server.serving import Serving
from penstock_runtime.server.settings import Serving as Limits
from penstock_runtime.server.statistics import Statistics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tried:
    """A loaded session and what was found out about it."""

    session: Session
    warmup: Warmup
    batching: Batching
    golden: int
    quota: float


def load_and_try(file: ModelFile, limits: Limits) -> Tried:
    """Load `file`, warm it, try it out and compare it with its golden requests; raises ModelLoadError.

    Takes as long as the model needs, in a thread. ONNX Runtime lets other threads run while it loads.
    """
    quota = cpu_quota() * limits.cpu_share
    session, warmup = load_and_warm(file.path, limits.threads, quota, limits.custom_domains, limits.compute)
    golden = rehearse_golden(session, file.path.parent)
    return Tried(session, warmup, try_out(session, limits.max_batch_rows), golden, quota)


async def load_version(
    name: str, file: ModelFile, limits: Limits, judging: Judging, issuer: Issuer, metrics: Metrics
) -> Serving:
    """Return `file` ready to answer as a version of the model `name`; raises ModelLoadError or SettingsError."""
    start = time.perf_counter()
    tried = await asyncio.to_thread(load_and_try, file, limits)
    session, batching = tried.session, tried.batching
    workers = concurrent_runs(tried.quota, session.threads)
    statistics = Statistics()
    executor = Executor(session, workers=workers, max_queue=limits.max_queue, warmup=tried.warmup, batching=batching,
                        patience=limits.timeout)  # fmt: skip
    try:
        serving = Serving(
            name=name, version=file.version, schema=session.schema, executor=executor,
            judge=judging.judge(session.schema), issuer=issuer, metrics=metrics, statistics=statistics,
            config=_describe_config(name, tried, workers, limits), timeout=limits.timeout,
        )  # fmt: skip
        await serving.rehearse()
    except BaseException:
        executor.close()
        raise
    executor.on_run = serving.count_run
    seconds = time.perf_counter() - start
    metrics.load_seconds = seconds
    _report(serving, tried, workers, seconds)
    return serving


def _describe_config(name: str, tried: Tried, workers: int, limits: Limits) -> bytes:
    parameters = {
        "threads": tried.session.threads,
        "max_queue": limits.max_queue,
        "max_batch_rows": tried.batching.max_rows,
        "max_body_bytes": limits.max_body_bytes,
        "timeout_seconds": limits.timeout,
    }
    return orjson.dumps(
        describe_config(tried.session.schema, name, workers, parameters, gpu=tried.session.provider != CPU)
    )


def _report(serving: Serving, tried: Tried, workers: int, seconds: float) -> None:
    if tried.session.fallback is not None:
        event(logger, "computes on something else than was asked for first", level=logging.WARNING,
              provider=tried.session.provider, reason=tried.session.fallback)  # fmt: skip
    if tried.batching.reason is not None:
        event(logger, "requests are not run together", reason=tried.batching.reason)
    if tried.warmup.failure is not None:
        event(logger, "warm-up with synthetic rows failed; serving all the same",
              level=logging.WARNING, reason=tried.warmup.failure)  # fmt: skip
    event(logger, "loaded", model=serving.name, revision=serving.metrics.revision, version=serving.version,
          provider=tried.session.provider,
          cpu_quota=tried.quota, intra_op_threads=tried.session.threads, workers=workers,
          warmup_seconds=tried.warmup.seconds, inline_elements=serving.executor.inline_elements,
          max_batch_rows=tried.batching.max_rows, decision_output=serving.judge.output,
          golden_requests=tried.golden, load_seconds=round(seconds, 3))  # fmt: skip
