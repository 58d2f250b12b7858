"""Threads that run the model, and the line of requests before them.

A request that finds a free thread is run at once, alone. One that finds none waits, and a thread that becomes
free takes the oldest that waits together with what can share its run. Nothing ever waits for more to come.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from penstock_runtime.engine.line import Job, Line, Ran, Run
from penstock_runtime.engine.rows import NotByRow, count_bytes, count_rows, group_of, join, split
from penstock_runtime.engine.session import Session, Tensor
from penstock_runtime.log import event
from penstock_runtime.protocol.errors import Overloaded, TimedOut

logger = logging.getLogger(__name__)

# Beyond it a run gains little by more rows, and the memory that the model takes for them is felt.
MAX_BATCH_BYTES = 4 * 2**20
# Runs together that fail though each of their requests succeeds alone: so many, and it is given up.
MAX_DOUBTS = 3


class _Finished(NamedTuple):
    """What became of jobs, and the rows of the run that they shared; 0 if none ended well."""

    results: Sequence[tuple[Job, Ran | Exception]]
    rows: int


class Pool:
    """At most `workers` runs at once, at most `max_queue` requests waiting, at most `max_rows` rows together.

    All methods are called from the event loop. `on_run` is called there with the rows of each run that ended
    well.
    """

    def __init__(self, session: Session, *, workers: int, max_queue: int, max_rows: int) -> None:
        """`max_rows` of 1 runs each request alone."""
        self._session = session
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self._max_queue = max_queue
        self._line = Line(max_rows, MAX_BATCH_BYTES)
        # Guards the line, `_free` and `_taken`, which threads change as well.
        self._lock = threading.Lock()
        self._free = workers
        self._taken = 0
        self._settled = 0
        self._inside = 0
        self._closed = False
        self._doubts = 0
        self.on_run: Callable[[int], None] = _ignore

    @property
    def pending(self) -> int:
        """Requests that wait or whose run has not ended, even if nobody waits for it any more."""
        return len(self._line) + self._taken - self._settled

    @property
    def capacity(self) -> int:
        """How many requests may be under way: those that run or were just answered, and a full line."""
        return self._max_queue + self._inside - len(self._line) + self._free

    async def run(self, outputs: Sequence[str], inputs: dict[str, Tensor], seconds: float) -> Ran:
        """Run the model on `inputs` within `seconds`.

        Raises Overloaded if the line is full, TimedOut if the time is up, and what Session.run raises. On a
        timeout, or if the caller is cancelled, a waiting request is dropped; a run that nobody waits for any
        more is told to stop.
        """
        if not self._free and len(self._line) >= self._max_queue:
            raise Overloaded
        loop = asyncio.get_running_loop()
        job = Job(outputs, inputs, count_rows(inputs), count_bytes(inputs), self._group(outputs, inputs),
                  time.perf_counter(), seconds, loop.create_future())  # fmt: skip
        timer = loop.call_later(seconds, self._expire, job)
        self._inside += 1
        try:
            self._begin(job)
            return await job.future
        except asyncio.CancelledError:
            self._abandon(job)
            raise
        finally:
            self._inside -= 1
            timer.cancel()

    def close(self) -> None:
        """Drop what waits; stop the threads as soon as what runs has ended."""
        with self._lock:
            self._closed = True
            dropped = self._line.clear()
        for job in dropped:
            job.future.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _group(self, outputs: Sequence[str], inputs: dict[str, Tensor]) -> Hashable | None:
        return group_of(outputs, inputs) if self._line.max_rows > 1 else None

    def _begin(self, job: Job) -> None:
        with self._lock:
            # A free thread takes this one alone: with several free ones, what comes at once runs side by side.
            at_once = self._free > 0
            if at_once:
                self._free -= 1
                self._taken += 1
            else:
                self._line.add(job)
        if at_once:
            self._threads.submit(self._work, [job])

    def _expire(self, job: Job) -> None:
        if not job.future.done():
            self._abandon(job)
            job.future.set_exception(_timed_out(job))

    def _abandon(self, job: Job) -> None:
        job.gone = True
        with self._lock:
            self._line.remove(job)
        if job.run is not None:
            job.run.stop_if_deserted()

    def _settle(self, finished: _Finished) -> None:
        self._settled += len(finished.results)
        for job, result in finished.results:
            # Else a job and its run keep each other, and their arrays, until the garbage collector comes.
            job.run = None
            job.inputs = {}
            if job.future.done():
                continue
            if isinstance(result, Ran):
                job.future.set_result(result)
            else:
                job.future.set_exception(result)
        if finished.rows:
            self.on_run(finished.rows)

    # From here on: in the threads.

    def _work(self, jobs: list[Job]) -> None:
        while jobs:
            finished = (self._run_together(jobs) if len(jobs) > 1 else None) or self._run_each(jobs)
            # Only then told: who hears of an answer may count on a thread being free.
            jobs = self._next()
            self._post(finished)
            del finished  # or the next run would keep these answers

    def _next(self) -> list[Job]:
        with self._lock:
            jobs = [] if self._closed else self._line.take(time.perf_counter())
            self._taken += len(jobs)
            if not jobs:
                self._free += 1
        return jobs

    def _run_together(self, jobs: list[Job]) -> _Finished | None:
        """Run `jobs` as one; return None where that fails for whatever reason."""
        start = time.perf_counter()
        try:
            inputs = join([job.inputs for job in jobs])
            outputs = self._session.run(jobs[0].outputs, inputs, Run(jobs).options)
            parts = split(outputs, [job.rows for job in jobs])
        except NotByRow as error:
            self._run_no_more_together(str(error))
            return None
        except Exception:  # noqa: BLE001 - whatever one of them did to the others: each gets a run of its own
            return None
        ran = time.perf_counter() - start
        results = [(job, Ran(part, start - job.asked, ran)) for job, part in zip(jobs, parts, strict=True)]
        return _Finished(results, sum(job.rows for job in jobs))

    def _run_each(self, jobs: list[Job]) -> _Finished:
        """Run each of `jobs` alone; all but the last are told at once."""
        *others, last = jobs
        failed = False
        for job in others:
            finished = self._run_alone(job)
            failed = failed or not finished.rows
            self._post(finished)
        finished = self._run_alone(last)
        if others and not failed and finished.rows:
            self._doubts += 1
            if self._doubts == MAX_DOUBTS:
                self._run_no_more_together("runs of several failed, though each of their requests succeeds alone")
        return finished

    def _run_no_more_together(self, reason: str) -> None:
        if self._line.max_rows > 1:
            self._line.max_rows = 1
            event(logger, "requests are no longer run together", level=logging.WARNING, reason=reason)

    def _run_alone(self, job: Job) -> _Finished:
        options = Run([job]).options
        start = time.perf_counter()
        if job.gone or job.deadline <= start:
            return _Finished([(job, _timed_out(job))], 0)
        try:
            outputs = self._session.run(job.outputs, job.inputs, options)
        except Exception as error:  # noqa: BLE001 - raised again where the answer is waited for
            return _Finished([(job, error)], 0)
        return _Finished([(job, Ran(outputs, start - job.asked, time.perf_counter() - start))], job.rows)

    def _post(self, finished: _Finished) -> None:
        loop = finished.results[0][0].future.get_loop()
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._settle, finished)


def _timed_out(job: Job) -> TimedOut:
    return TimedOut(f"no answer within {job.seconds:g} s")


def _ignore(rows: int) -> None:
    """Nobody counts."""
