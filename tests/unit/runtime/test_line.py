"""Order in the line: first come first served, and who goes along with whom."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.engine.job import Job
from penstock_runtime.engine.line import Bounds, Line


def job(group: str | None, rows: int = 1, *, size: int = 1, seconds: float = 100.0) -> Job:
    future: asyncio.Future[object] = asyncio.Future(loop=_LOOP)
    return Job((), {}, rows, size, group, 0.0, seconds, future)


_LOOP = asyncio.new_event_loop()
_LOOP.close()


def waiting(*jobs: Job, max_rows: int = 32, max_bytes: int = 1000) -> Line:
    line = Line(Bounds(max_rows, max_bytes))
    for each in jobs:
        line.add(each)
    return line


def test_the_oldest_takes_its_kind_along_and_others_keep_their_place() -> None:
    a1, b1, a2, b2 = (job(group) for group in "abab")
    line = waiting(a1, b1, a2, b2)
    assert [line.take(0), line.take(0), line.take(0)] == [[a1, a2], [b1, b2], []]


def test_what_must_run_alone_does() -> None:
    first, second = job(None), job(None)
    line = waiting(first, second)
    assert [line.take(0), line.take(0)] == [[first], [second]]


def test_a_run_has_so_many_rows_and_no_more_and_nobody_overtakes_his_kind() -> None:
    jobs = [job("a", rows) for rows in (2, 1, 3, 1)]
    line = waiting(*jobs, max_rows=4)
    assert [line.take(0), line.take(0)] == [jobs[:2], jobs[2:]]


def test_a_request_beyond_the_bounds_runs_alone() -> None:
    jobs = [job("a"), job("a", 9), job("a", size=2000), job("a"), job("a")]
    line = waiting(*jobs, max_rows=4)
    assert [line.take(0) for _ in range(4)] == [jobs[:1], jobs[1:2], jobs[2:3], jobs[3:]]


def test_bytes_are_bounded_too() -> None:
    jobs = [job("a", size=400) for _ in range(3)]
    line = waiting(*jobs)
    assert [line.take(0), line.take(0)] == [jobs[:2], jobs[2:]]


def test_whose_time_is_up_is_dropped_and_takes_no_room() -> None:
    late, first, late_too, second = (job("a", seconds=seconds) for seconds in (1, 9, 1, 9))
    line = waiting(late, first, late_too, second, max_rows=2)
    assert line.take(5) == [first, second]
    assert len(line) == 0


def test_who_leaves_is_not_taken_and_may_leave_twice() -> None:
    jobs = [job("a") for _ in range(3)]
    line = waiting(*jobs)
    for _ in range(2):
        line.remove(jobs[0])
    line.remove(job("b"))
    assert (len(line), line.take(0)) == (2, jobs[1:])


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 6), st.integers(1, 600))),
    st.integers(1, 8),
)
def test_every_run_keeps_the_rules(kinds: list[tuple[str | None, int, int]], max_rows: int) -> None:
    jobs = [job(group, rows, size=size) for group, rows, size in kinds]
    line = waiting(*jobs, max_rows=max_rows)
    left = list(jobs)
    while taken := line.take(0):
        assert taken[0] is left[0], "the oldest comes first"
        if len(taken) > 1:
            assert {each.group for each in taken} <= {"a", "b"}
            assert len({each.group for each in taken}) == 1
            assert sum(each.rows for each in taken) <= max_rows
            assert sum(each.size for each in taken) <= 1000
        kin = [each for each in left if each.group == taken[0].group]
        assert taken == kin[: len(taken)], "in their order, nobody left out"
        more = kin[len(taken) :]
        if more and taken[0].group is not None:
            assert (sum(each.rows for each in (*taken, more[0])) > max_rows
                    or sum(each.size for each in (*taken, more[0])) > 1000), "no room was left"  # fmt: skip
        left = [each for each in left if each not in taken]
    assert not left
    assert len(line) == 0
