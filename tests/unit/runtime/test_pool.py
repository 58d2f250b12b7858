"""Requests that wait for a thread: run together, each with its own answer, error and time."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock_runtime.engine.job import Ran, run_in
from penstock_runtime.engine.joint import MAX_DOUBTS, Joint
from penstock_runtime.engine.line import Bounds
from penstock_runtime.engine.pool import NICE, Pool
from penstock_runtime.engine.session import Session, Tensor
from penstock_runtime.protocol.errors import InvalidRequest, Overloaded, TimedOut, Unavailable

FOREVER = 2**40
DOUBLE = ("double", "picked")


@pytest.fixture(scope="module")
def patient(models: Path) -> Session:
    return Session(models / "patient" / "model.onnx", 1)


def request(*values: float, width: int = 2, index: int = 0, loops: int = 0) -> dict[str, Tensor]:
    """Rows of the patient model, each of `width` times one of `values`."""
    rows = len(values)
    return {
        "x": np.repeat(np.array(values, np.float32), width).reshape(rows, width),
        "i": np.full(rows, index, np.int64),
        "n": np.full(rows, loops, np.int64),
    }


class Rig:
    """A pool whose threads are all kept busy until they are let go, and the rows of the runs since."""

    def __init__(self, pool: Pool, busy: Sequence[asyncio.Task[Ran]]) -> None:
        self.pool = pool
        self.runs: list[int] = []
        pool.on_run = lambda rows, _: self.runs.append(rows)
        self._busy = busy

    def ask(self, inputs: dict[str, Tensor], outputs: Sequence[str] = DOUBLE, seconds: float = 60) -> asyncio.Task[Ran]:
        return asyncio.create_task(run_in(self.pool, outputs, inputs, seconds))

    async def let_go(self) -> None:
        await asyncio.sleep(0)  # those that asked get into the line first
        for task in self._busy:
            task.cancel()


@asynccontextmanager
async def busy_pool(
    session: Session, *, workers: int = 1, max_queue: int = 100, max_rows: int = 32
) -> AsyncIterator[Rig]:
    pool = Pool(Joint(session, Bounds(max_rows)), workers=workers, max_queue=max_queue)
    busy = [asyncio.create_task(run_in(pool, DOUBLE, request(0, loops=FOREVER), 60)) for _ in range(workers)]
    await asyncio.sleep(0)
    try:
        yield Rig(pool, busy)
    finally:
        for task in busy:
            task.cancel()
        await until(lambda: pool.pending == 0)
        pool.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - ONNX Runtime heeds its flag in its own time
            await asyncio.sleep(0.002)


async def test_a_lone_request_runs_at_once_and_alone(patient: Session) -> None:
    pool = Pool(Joint(patient, Bounds(32)), workers=1, max_queue=0)
    runs: list[int] = []
    pool.on_run = lambda rows, _: runs.append(rows)
    for value in (1, 2, 3):
        assert (await run_in(pool, DOUBLE, request(value), 60)).outputs[0][0, 0] == 2 * value
    assert runs == [1, 1, 1]
    pool.close()


async def test_those_that_wait_share_one_run(patient: Session) -> None:
    async with busy_pool(patient) as rig:
        tasks = [rig.ask(request(value, index=value)) for value in range(5)]
        await rig.let_go()
        done = await asyncio.gather(*tasks)
        for value, ran in enumerate(done):
            assert ran.outputs[0].tolist() == [[2 * value] * 2]
            assert ran.outputs[1].tolist() == [10 * value]
        assert rig.runs == [5]
        assert len({ran.ran for ran in done}) == 1, "the time in the model is that of the run they shared"
        assert all(ran.queued > 0 for ran in done)
        assert [ran.queued for ran in done] == sorted((ran.queued for ran in done), reverse=True)


async def test_outputs_asked_for_shapes_and_bounds_keep_requests_apart(patient: Session) -> None:
    async with busy_pool(patient, max_rows=3) as rig:
        tasks = [
            rig.ask(request(1)),
            rig.ask(request(2, width=3)),
            rig.ask(request(3), outputs=("picked",)),
            rig.ask(request(4, 5, 6, 7)),
            rig.ask(request(8, 9)),
            rig.ask(request(10)),
        ]
        await rig.let_go()
        done = await asyncio.gather(*tasks)
        assert rig.runs == [1, 1, 1, 4, 3]
        assert [len(ran.outputs) for ran in done] == [2, 2, 1, 2, 2, 2]
        assert done[4].outputs[0].tolist() == [[16, 16], [18, 18]]


async def test_one_bad_request_does_not_fail_its_neighbours(patient: Session) -> None:
    async with busy_pool(patient) as rig:
        tasks = [rig.ask(request(value, index=index)) for value, index in ((1, 1), (2, 99), (3, 3))]
        await rig.let_go()
        good, bad, good_too = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(bad, InvalidRequest)
        assert isinstance(good, Ran)
        assert isinstance(good_too, Ran)
        assert [good.outputs[1][0], good_too.outputs[1][0]] == [10, 30]
        assert rig.runs == [1, 1], "a run that failed has no rows"


async def test_with_a_bound_of_one_row_each_runs_alone(patient: Session) -> None:
    async with busy_pool(patient, max_rows=1) as rig:
        tasks = [rig.ask(request(value)) for value in range(3)]
        await rig.let_go()
        await asyncio.gather(*tasks)
        assert rig.runs == [1, 1, 1]


async def test_whoever_leaves_the_line_is_not_run(patient: Session) -> None:
    async with busy_pool(patient) as rig:
        stays, leaves, late = rig.ask(request(1)), rig.ask(request(2)), rig.ask(request(3), seconds=0.01)
        await asyncio.sleep(0)
        leaves.cancel()
        with pytest.raises(TimedOut, match=r"no answer within 0\.01 s"):
            await late
        assert rig.pool.pending == 2
        await rig.let_go()
        assert (await stays).outputs[0][0, 0] == 2
        assert leaves.cancelled()
        assert rig.runs == [1]


async def test_a_request_whose_time_is_up_is_not_run_even_if_the_event_loop_is_late(patient: Session) -> None:
    async with busy_pool(patient) as rig:
        late, stays = rig.ask(request(1), seconds=0.0), rig.ask(request(2))
        await rig.let_go()
        with pytest.raises(TimedOut):
            await late
        await stays
        assert rig.runs == [1]


async def test_a_shared_run_goes_on_while_somebody_waits_and_stops_when_nobody_does(patient: Session) -> None:
    async with busy_pool(patient) as rig:
        tasks = [rig.ask(request(value, loops=FOREVER)) for value in range(3)]
        await rig.let_go()
        await until(lambda: rig.pool.pending == 3)
        line_empty = rig.pool.capacity == 100 + 3
        assert line_empty
        for task in tasks[:2]:
            task.cancel()
        await asyncio.sleep(0.05)
        assert rig.pool.pending == 3, "the third still waits for its run"
        tasks[2].cancel()
        await until(lambda: rig.pool.pending == 0)
        assert rig.runs == []
        assert (await run_in(rig.pool, DOUBLE, request(4), 60)).outputs[0][0, 0] == 8


async def test_the_line_is_as_long_as_it_is_told_whatever_runs_together(patient: Session) -> None:
    async with busy_pool(patient, max_queue=4) as rig:
        assert rig.pool.capacity == 5
        tasks = [rig.ask(request(value, loops=FOREVER)) for value in range(4)]
        await asyncio.sleep(0)
        assert rig.pool.capacity == 5
        with pytest.raises(Overloaded):
            await run_in(rig.pool, DOUBLE, request(9), 60)
        await rig.let_go()
        await until(lambda: rig.pool.capacity == 8)  # four run together, four may wait
        tasks += [rig.ask(request(value)) for value in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await run_in(rig.pool, DOUBLE, request(9), 60)
        for task in tasks[:4]:
            task.cancel()
        done = await asyncio.gather(*tasks[4:])
        assert [ran.outputs[0][0, 0] for ran in done] == [0, 2, 4, 6]


async def test_the_line_is_no_longer_than_what_can_be_answered_in_time(patient: Session) -> None:
    pool = Pool(Joint(patient, Bounds(1)), workers=1, max_queue=1000, patience=0.5)
    for _ in range(30):
        await run_in(pool, DOUBLE, request(1, loops=100), 60)
    tasks = [asyncio.create_task(run_in(pool, DOUBLE, request(1, loops=100), 60)) for _ in range(1000)]
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done()]
    assert all(isinstance(task.exception(), Overloaded) for task in refused), "they are refused at once"
    answered = [task for task in tasks if task not in refused]
    assert 1 < len(answered) < 500
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*answered)
    assert asyncio.get_running_loop().time() - started < 5, "as long as they were given, and what a busy machine adds"
    await run_in(pool, DOUBLE, request(1), 60)
    pool.close()


async def test_a_single_long_run_turns_nobody_away_for_long(patient: Session) -> None:
    pool = Pool(Joint(patient, Bounds(1)), workers=1, max_queue=8, patience=0.05)
    await run_in(pool, DOUBLE, request(1, loops=3000), 60)
    for _ in range(20):
        await run_in(pool, DOUBLE, request(1), 60)
    tasks = [asyncio.create_task(run_in(pool, DOUBLE, request(1), 60)) for _ in range(9)]
    assert len(await asyncio.gather(*tasks)) == 9
    pool.close()


async def test_without_a_line_one_after_the_other_is_never_refused(patient: Session) -> None:
    pool = Pool(Joint(patient, Bounds(32)), workers=1, max_queue=0)
    for value in range(200):
        await run_in(pool, DOUBLE, request(value), 60)
    pool.close()


async def test_free_threads_share_what_comes_at_once(patient: Session) -> None:
    pool = Pool(Joint(patient, Bounds(32)), workers=3, max_queue=10)
    runs: list[int] = []
    pool.on_run = lambda rows, _: runs.append(rows)
    tasks = [asyncio.create_task(run_in(pool, DOUBLE, request(value), 60)) for value in range(3)]
    await asyncio.gather(*tasks)
    assert runs == [1, 1, 1]
    pool.close()


async def test_a_thread_that_becomes_free_takes_what_waits_while_others_are_busy(patient: Session) -> None:
    pool = Pool(Joint(patient, Bounds(32)), workers=2, max_queue=10)
    stuck, brief = (asyncio.create_task(run_in(pool, DOUBLE, request(0, loops=n), 60)) for n in (FOREVER, FOREVER))
    waiting = [asyncio.create_task(run_in(pool, DOUBLE, request(value), 60)) for value in range(3)]
    await asyncio.sleep(0)
    brief.cancel()
    assert [ran.outputs[0][0, 0] for ran in await asyncio.gather(*waiting)] == [0, 2, 4]
    assert not stuck.done()
    stuck.cancel()
    await until(lambda: pool.pending == 0)
    pool.close()


async def test_a_model_that_fails_together_but_not_alone_is_no_longer_run_together(
    patient: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Session.run

    def alone_only(self: Session, outputs: Sequence[str], inputs: dict[str, Tensor], *more: object) -> list[Tensor]:
        if len(inputs["n"]) > 1:
            raise MemoryError
        return run(self, outputs, inputs, *more)

    monkeypatch.setattr(Session, "run", alone_only)
    async with busy_pool(patient) as rig:
        for doubts in range(MAX_DOUBTS):
            assert rig.pool._joint._doubts == doubts
            hold = rig.ask(request(0, width=9, loops=FOREVER))
            await rig.let_go()
            await until(lambda: len(rig.pool._line) == 0)
            tasks = [rig.ask(request(value)) for value in range(2)]
            await asyncio.sleep(0)
            hold.cancel()
            assert [ran.outputs[0][0, 0] for ran in await asyncio.gather(*tasks)] == [0, 2]
        assert rig.pool._joint.bounds.rows == 1


async def test_rows_that_do_not_come_back_end_running_together_at_once(
    patient: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Session.run

    def one_more(self: Session, outputs: Sequence[str], inputs: dict[str, Tensor], *more: object) -> list[Tensor]:
        found = run(self, outputs, inputs, *more)
        return found if len(inputs["n"]) == 1 else [np.concatenate([array, array[:1]]) for array in found]

    monkeypatch.setattr(Session, "run", one_more)
    async with busy_pool(patient) as rig:
        tasks = [rig.ask(request(value)) for value in range(2)]
        await rig.let_go()
        assert [ran.outputs[0].tolist() for ran in await asyncio.gather(*tasks)] == [[[0, 0]], [[2, 2]]]
        assert rig.pool._joint.bounds.rows == 1


async def test_nothing_of_a_request_is_kept_once_it_is_answered(patient: Session) -> None:
    gc.disable()  # what only the collector frees is kept for longer than needed
    try:
        async with busy_pool(patient) as rig:
            inputs = [request(value, width=20_000) for value in range(4)]
            kept = [weakref.ref(each["x"]) for each in inputs]
            tasks = [rig.ask(each) for each in inputs]
            await rig.let_go()
            done = [await task for task in tasks]  # gather's own parts would keep each other
            kept += [weakref.ref(ran.outputs[0]) for ran in done]
            whole: dict[int, weakref.ref[Tensor]] = {
                id(ran.outputs[0].base): weakref.ref(ran.outputs[0].base)  # type: ignore[arg-type]
                for ran in done
            }
            assert len(whole) == 1, "large parts are views"
            del inputs, tasks, done
            await asyncio.sleep(0.05)
            assert [ref() is None for ref in (*kept, *whole.values())] == [True] * 9
    finally:
        gc.enable()


async def test_threads_come_after_the_event_loop(patient: Session) -> None:
    pool = Pool(Joint(patient, Bounds(1)), workers=1, max_queue=1)
    await run_in(pool, DOUBLE, request(1), 60)
    (thread,) = pool._threads._threads
    assert thread.native_id is not None
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == min(19, ours + NICE)
    pool.close()


async def test_closing_drops_what_waits(patient: Session) -> None:
    async with busy_pool(patient) as rig:
        waiting = rig.ask(request(1))
        await asyncio.sleep(0)
        rig.pool.close()
        with pytest.raises(Unavailable):
            await waiting
        assert rig.pool.pending == 1


def test_a_thread_survives_the_event_loop(patient: Session) -> None:
    async def leave() -> None:
        pool = Pool(Joint(patient, Bounds(32)), workers=1, max_queue=1)
        asyncio.create_task(run_in(pool, DOUBLE, request(0, loops=20_000), 60)).add_done_callback(lambda _: None)
        await asyncio.sleep(0)
        pool.close()

    before = set(threading.enumerate())
    asyncio.run(leave())
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


ASKED = st.tuples(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=4),  # rows
    st.integers(1, 3),  # width
    st.sampled_from([DOUBLE, ("picked", "double"), ("double",)]),
    st.sampled_from([0, 1, 7, 99]),  # index; 99 is beyond the model's table
    st.sampled_from(["stay", "stay", "stay", "leave early", "leave late"]),
    st.booleans(),  # whether the event loop has a turn after it
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ASKED, min_size=1, max_size=16), st.integers(1, 2), st.integers(1, 8), st.integers(0, 16))
@example([([1], 1, DOUBLE, 0, "stay", False), ([2], 1, DOUBLE, 99, "stay", False)], 1, 8, 0)
def test_everyone_gets_exactly_their_own(
    patient: Session, asked: list[tuple[list[int], int, Sequence[str], int, str, bool]], workers: int,
    max_rows: int, held: int,
) -> None:  # fmt: skip
    """`held`: how many of them ask before the threads are let go."""

    async def ask_all() -> None:
        async with busy_pool(patient, workers=workers, max_rows=max_rows) as rig:
            tasks = []
            for number, (values, width, outputs, index, fate, turn) in enumerate(asked):
                if number == held:
                    await rig.let_go()
                tasks.append(rig.ask(request(*values, width=width, index=index), outputs))
                if turn or fate == "leave early":
                    await asyncio.sleep(0)
                if fate == "leave early":
                    tasks[-1].cancel()
            await rig.let_go()
            for task, (*_, fate, _turn) in zip(tasks, asked, strict=True):
                if fate == "leave late":
                    task.cancel()
            check(await asyncio.gather(*tasks, return_exceptions=True))
            most = max(max_rows, *(len(values) for values, *_ in asked))
            assert all(rows <= most for rows in rig.runs)

    def check(found: list[Ran | BaseException]) -> None:
        for result, (values, width, outputs, index, fate, _) in zip(found, asked, strict=True):
            if fate != "stay" and isinstance(result, asyncio.CancelledError):
                continue
            if index == 99:
                assert isinstance(result, InvalidRequest)
                continue
            assert isinstance(result, Ran)
            by_name = {name: array.tolist() for name, array in zip(outputs, result.outputs, strict=True)}
            assert by_name["double"] == [[2.0 * value] * width for value in values]
            assert by_name.get("picked", [10 * index] * len(values)) == [10 * index] * len(values)

    asyncio.run(ask_all())
