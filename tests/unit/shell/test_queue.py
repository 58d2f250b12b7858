"""The work queue in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.shell.queue import ShutDown, WorkQueue
from tests.fakes.timer import FakeTimer


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer()


@pytest.fixture
def queue(timer: FakeTimer) -> WorkQueue[str]:
    return WorkQueue(timer, base=0.5, cap=300.0, gather=0.1, jitter=lambda: 0.5)


async def test_keys_come_out_once_and_in_order(queue: WorkQueue[str]) -> None:
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]
    assert len(queue) == 0


async def test_a_key_added_while_it_is_worked_on_comes_back_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "it must not run twice at a time"
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert (len(queue), queue.running) == (0, 0)


async def test_of_several_times_the_earliest_wins(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    queue.add_after("a", 10)
    queue.add_after("a", 30)
    queue.add_after("a", 5)
    timer.advance(4.9)
    assert len(queue) == 0
    timer.advance(0.1)
    assert len(queue) == 1
    timer.advance(100)
    assert len(queue) == 1
    assert timer.pending == 0


async def test_a_run_answers_what_was_due_later(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    queue.add_after("a", 10)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    timer.advance(20)
    assert len(queue) == 0


async def test_a_time_set_during_a_run_is_kept(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add_after("a", 10)
    queue.done("a")
    timer.advance(10)
    assert await queue.get() == "a"


async def test_a_time_that_comes_during_a_run_waits_for_its_end(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add_after("a", 10)
    timer.advance(10)
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1


async def test_a_burst_of_events_is_one_run(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    for _ in range(20):
        queue.add_soon("a")
        timer.advance(0.001)
    assert len(queue) == 0
    timer.advance(0.1)
    assert len(queue) == 1


async def test_back_off_doubles_up_to_the_cap_and_starts_again(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    delays = []
    for _ in range(12):
        delays.append(queue.retry("a"))
        timer.advance(delays[-1])
        assert await queue.get() == "a"
        queue.done("a")
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == 300.0
    assert queue.retry("b") == 0.5
    queue.forget("a")
    assert queue.retry("a") == 0.5


async def test_events_during_a_back_off_do_not_lengthen_it(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    queue.retry("a")
    for _ in range(10):
        timer.advance(0.01)
        queue.add("a")
        assert await queue.get() == "a"
        assert queue.retry("a") == 0.5
        queue.done("a")
    timer.advance(0.5)
    assert queue.retry("a") == 1.0


async def test_back_off_is_spread(timer: FakeTimer) -> None:
    low: WorkQueue[str] = WorkQueue(timer, jitter=lambda: 0.0)
    high: WorkQueue[str] = WorkQueue(timer, jitter=lambda: 1.0)
    assert (low.retry("a"), high.retry("a")) == (0.375, 0.625)


async def test_a_dropped_key_does_not_come_back(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    queue.retry("a")
    queue.drop("a")
    timer.advance(1000)
    assert len(queue) == 0
    assert queue.retry("a") == 0.5


async def test_waiting_workers_get_keys_as_they_come(queue: WorkQueue[str]) -> None:
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in ("a", "b", "c"):
        queue.add(key)
    assert sorted(await asyncio.gather(*workers)) == ["a", "b", "c"]


async def test_a_wake_up_for_a_cancelled_worker_goes_to_another(queue: WorkQueue[str]) -> None:
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_shut_down_gives_out_nothing_more(timer: FakeTimer, queue: WorkQueue[str]) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("later", 1)
    queue.shut_down()
    with pytest.raises(ShutDown):
        await waiting
    queue.add("a")
    queue.add_after("a", 1)
    timer.advance(10)
    assert (len(queue), timer.pending) == (0, 0)
    with pytest.raises(ShutDown):
        await queue.get()


async def test_keys_that_wait_at_shut_down_stay(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.shut_down()
    with pytest.raises(ShutDown):
        await queue.get()


async def test_waiting_time_is_told(timer: FakeTimer) -> None:
    waits: list[float] = []
    queue: WorkQueue[str] = WorkQueue(timer, on_wait=waits.append)
    queue.add("a")
    timer.advance(3)
    await queue.get()
    queue.add("a")
    timer.advance(2)
    queue.done("a")
    timer.advance(1)
    await queue.get()
    assert waits == [3.0, 1.0]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.just(0.0)),
        st.tuples(st.just("after"), st.sampled_from("abc"), st.floats(0.0, 20.0)),
        st.tuples(st.just("retry"), st.sampled_from("abc"), st.just(0.0)),
        st.tuples(st.just("advance"), st.just(""), st.floats(0.0, 20.0)),
        st.tuples(st.just("get"), st.just(""), st.just(0.0)),
        st.tuples(st.just("done"), st.sampled_from("abc"), st.just(0.0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_key_is_lost_or_run_twice_at_a_time(steps: list[tuple[str, str, float]]) -> None:
    timer = FakeTimer()
    queue: WorkQueue[str] = WorkQueue(timer, jitter=lambda: 0.5)
    running: Counter[str] = Counter()
    owed: set[str] = set()

    async def play() -> None:
        for step, key, seconds in steps:
            match step:
                case "add":
                    queue.add(key)
                    owed.add(key)
                case "after":
                    queue.add_after(key, seconds)
                    owed.add(key)
                case "retry":
                    queue.retry(key)
                    owed.add(key)
                case "advance":
                    timer.advance(seconds)
                case "get" if len(queue):
                    got = await queue.get()
                    running[got] += 1
                    owed.discard(got)
                case "done" if running[key]:
                    running[key] -= 1
                    queue.done(key)
            assert max(running.values(), default=0) <= 1
        for key, count in running.items():
            if count:
                queue.done(key)
        timer.advance(1000)
        left = {await queue.get() for _ in range(len(queue))}
        assert owed <= left

    asyncio.run(play())
