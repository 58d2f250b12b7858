"""Where inferences run: tiny ones at once, others in the pool, and back when they turn out long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from penstock_runtime.engine import executor as module
from penstock_runtime.engine.executor import Executor, load_and_warm
from penstock_runtime.engine.job import Ran
from penstock_runtime.engine.session import Session, Warmup
from penstock_runtime.protocol.errors import InferenceFailed, InvalidRequest, Overloaded, TimedOut

TINY = Warmup(seconds=20e-6, elements=1, failure=None)
SLOW = Warmup(seconds=1.0, elements=1, failure=None)


@pytest.fixture
def slow(models: Path) -> Session:
    return Session(models / "slow" / "model.onnx", threads=1)


def loops(count: int, size: int = 1) -> dict[str, np.ndarray]:
    return {"n": np.full(size, count, np.int64)}


async def run(executor: Executor, count: int, *, size: int = 1, seconds: float = 30.0) -> Ran:
    return await executor.run(("mean",), loops(count, size), seconds)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (TINY, 10),
        (SLOW, 0),
        (Warmup(None, 4, "refused"), 0),
        (Warmup(50e-6, 100, None), 400),
        (Warmup(0.0, 1, None), 200),
    ],
)
def test_how_much_runs_inline_follows_from_the_warm_up(slow: Session, warmup: Warmup, expected: int) -> None:
    executor = Executor(slow, workers=1, max_queue=1, warmup=warmup)
    assert executor.inline_elements == pytest.approx(expected, abs=1)
    executor.close()


async def test_small_requests_run_at_once_and_larger_ones_in_the_pool(slow: Session) -> None:
    executor = Executor(slow, workers=1, max_queue=8, warmup=TINY)
    inline = asyncio.ensure_future(run(executor, 1))
    await asyncio.sleep(0)
    assert inline.done(), "it never left the event loop"
    pooled = asyncio.ensure_future(run(executor, 1, size=executor.inline_elements + 1))
    await asyncio.sleep(0)
    assert (pooled.done(), executor.pending) == (False, 1)
    assert (await pooled).outputs[0] == pytest.approx(1.0)
    assert executor.pending == 0
    executor.close()


async def test_a_model_that_proves_slow_leaves_the_event_loop(slow: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOO_LONG_SECONDS", 0.0)
    executor = Executor(slow, workers=1, max_queue=8, warmup=TINY)
    for _ in range(module.STRIKES):
        task = asyncio.ensure_future(run(executor, 1))
        await asyncio.sleep(0)
        assert task.done()
    banished = asyncio.ensure_future(run(executor, 1))
    await asyncio.sleep(0)
    assert executor.pending == 1
    await banished
    executor.close()


async def test_single_long_runs_are_forgiven(slow: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor(slow, workers=1, max_queue=8, warmup=TINY)
    for too_long in (0.0, 0.0, 1e9):
        monkeypatch.setattr(module, "TOO_LONG_SECONDS", too_long)
        for _ in range(1 if too_long == 0.0 else module.STRIKE_RUNS):
            await run(executor, 1)
    monkeypatch.setattr(module, "TOO_LONG_SECONDS", 0.0)
    task = asyncio.ensure_future(run(executor, 1))
    await asyncio.sleep(0)
    assert task.done()
    executor.close()


async def test_the_queue_is_bounded_and_time_is_kept(slow: Session) -> None:
    executor = Executor(slow, workers=1, max_queue=1, warmup=SLOW)
    first, second = (asyncio.ensure_future(run(executor, 2**40, seconds=0.3)) for _ in range(2))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await run(executor, 1)
    for task in (first, second):
        with pytest.raises(TimedOut, match=r"no answer within 0\.3 s"):
            await task
    while executor.pending:  # noqa: ASYNC110 - ONNX Runtime heeds its flag in its own time
        await asyncio.sleep(0.01)
    done = await run(executor, 1)
    assert done.ran > 0
    executor.close()


async def test_waiting_is_told_from_running(slow: Session) -> None:
    executor = Executor(slow, workers=1, max_queue=8, warmup=SLOW)
    first, second = await asyncio.gather(run(executor, 500), run(executor, 1))
    assert second.queued > 0.9 * first.ran > second.ran
    executor.close()


def test_failures_inside_a_model_say_whose_fault_they_are(models: Path) -> None:
    session = Session(models / "picky" / "model.onnx", threads=1)
    with pytest.raises(InferenceFailed, match="the model failed: "):
        session.run(("square",), {"x": np.zeros(3, np.float32)})
    with pytest.raises(InvalidRequest, match="the model refused the input: "):
        session.run(("square",), {"x": np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize(
    ("model", "threads", "quota", "expected"),
    [("iris", None, 4.0, 1), ("iris", 3, 4.0, 3), ("slow", None, 4.0, 4), ("slow", None, 0.5, 1)],
)
def test_a_tiny_model_gets_one_thread_and_a_larger_one_what_there_is(
    models: Path, monkeypatch: pytest.MonkeyPatch, model: str, threads: int | None, quota: float, expected: int
) -> None:
    # The bar between them is set where a busy machine cannot blur it.
    monkeypatch.setattr(module, "INLINE_SECONDS", 0.5 if model == "iris" else 0.0)
    session, warmup = load_and_warm(models / model / "model.onnx", threads, quota)
    assert session.threads == expected
    assert warmup.seconds


def test_warm_up_measures_and_forgives(models: Path) -> None:
    assert 0 < (Session(models / "iris" / "model.onnx", 1).warm_up().seconds or 0) < 1
    refused = Session(models / "picky" / "model.onnx", 1).warm_up()
    assert refused.seconds is None
    assert refused.failure
    text = Session(models / "echo" / "model.onnx", 1).warm_up()
    assert (text.elements, text.failure) == (24, None)
