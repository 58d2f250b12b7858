"""Tiny requests of one turn of the event loop: the first at once, those behind it together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_runtime.engine.batchable import Batching
from penstock_runtime.engine.executor import Executor
from penstock_runtime.engine.job import Ran
from penstock_runtime.engine.session import Session, Warmup
from penstock_runtime.protocol.errors import InvalidRequest

TINY = Warmup(seconds=20e-6, elements=4, failure=None)
OUTPUTS = ("double", "picked")


@pytest.fixture(scope="module")
def patient(models: Path) -> Session:
    return Session(models / "patient" / "model.onnx", 1)


def collecting(session: Session, saved: float = 1.0, max_rows: int = 32) -> tuple[Executor, list[int]]:
    executor = Executor(session, workers=1, max_queue=2, warmup=TINY, batching=Batching(max_rows, saved))
    runs: list[int] = []
    executor.on_run = lambda rows, _: runs.append(rows)
    return executor, runs


@pytest.fixture
def executor(patient: Session) -> Iterator[tuple[Executor, list[int]]]:
    made = collecting(patient)
    yield made
    made[0].close()


def ask(executor: Executor, value: int, width: int = 2, index: int = 0) -> asyncio.Task[Ran]:
    inputs: dict[str, np.ndarray] = {
        "x": np.full((1, width), value, np.float32),
        "i": np.array([index], np.int64),
        "n": np.zeros(1, np.int64),
    }
    return asyncio.create_task(executor.run(OUTPUTS, inputs, 60))


async def test_a_request_by_itself_runs_at_once(executor: tuple[Executor, list[int]]) -> None:
    for value in range(3):
        task = ask(executor[0], value)
        await asyncio.sleep(0)
        assert task.done(), "it did not wait for the turn's end"
        await asyncio.sleep(0)
    assert executor[1] == [1, 1, 1]


async def test_those_behind_the_first_of_a_turn_run_together(executor: tuple[Executor, list[int]]) -> None:
    tasks = [ask(executor[0], value, index=value) for value in range(6)]
    capacity = executor[0].capacity
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True] + [False] * 5
    assert executor[0].capacity == capacity + 5, "they take no room from those that wait for threads"
    done = await asyncio.gather(*tasks)
    assert [ran.outputs[1].tolist() for ran in done] == [[10 * value] for value in range(6)]
    assert executor[1] == [1, 5]
    assert executor[0].capacity == capacity


async def test_a_bad_one_among_them_gets_its_own_error(executor: tuple[Executor, list[int]]) -> None:
    tasks = [ask(executor[0], value, index=index) for value, index in ((0, 0), (1, 1), (2, 99), (3, 3))]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[2], InvalidRequest)
    assert [ran.outputs[1][0] for ran in found if isinstance(ran, Ran)] == [0, 10, 30]


async def test_who_leaves_before_the_turns_end_disturbs_nobody(executor: tuple[Executor, list[int]]) -> None:
    first, leaves, stays = (ask(executor[0], value) for value in range(3))
    await asyncio.sleep(0)
    leaves.cancel()
    assert [ran.outputs[0][0, 0] for ran in await asyncio.gather(first, stays)] == [0, 4]
    await asyncio.wait((leaves,))
    assert leaves.cancelled()
    assert executor[0].capacity == 3


@pytest.mark.parametrize("saved", [0.0, -1e-6])
async def test_a_model_that_gains_nothing_collects_nothing(patient: Session, saved: float) -> None:
    made, runs = collecting(patient, saved)
    await asyncio.gather(*(ask(made, value) for value in range(4)))
    assert runs == [1, 1, 1, 1]
    made.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(-99, 99), st.integers(1, 3), st.integers(0, 7), st.booleans()), max_size=24),
    st.integers(2, 8),
)
def test_everyone_gets_exactly_their_own(
    patient: Session, asked: list[tuple[int, int, int, bool]], max_rows: int
) -> None:
    async def ask_all() -> None:
        made, runs = collecting(patient, max_rows=max_rows)
        tasks = []
        for value, width, index, turn in asked:
            tasks.append(ask(made, value, width, index))
            if turn:
                await asyncio.sleep(0)
        for ran, (value, width, index, _) in zip(await asyncio.gather(*tasks), asked, strict=True):
            assert ran.outputs[0].tolist() == [[2.0 * value] * width]
            assert ran.outputs[1].tolist() == [10 * index]
        assert sum(runs) == len(asked)
        assert all(rows <= max_rows for rows in runs)
        made.close()

    asyncio.run(ask_all())
