"""Threads that run the model, and the line of requests before them.

A request that finds a free thread is run at once, alone. One that finds none waits, and a thread that becomes
free takes the oldest that waits together with what can share its run. Nothing ever waits for more to come.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf

from penstock_runtime.engine.job import Answerer, Job, Waiter
from penstock_runtime.engine.joint import Finished, Joint, timed_out
from penstock_runtime.engine.line import Line
from penstock_runtime.engine.session import Tensor
from penstock_runtime.protocol.errors import Overloaded, Unavailable

# How much nicer than the event loop the threads are.
NICE = 5
# How much of the pace is the latest run's.
_SLOWER, _QUICKER = 0.1, 0.5


class Pool:
    """At most `workers` runs at once, at most `max_queue` requests waiting.

    All methods are called from the event loop. `on_run` is called there with the rows and seconds of each run that
    ended well.
    """

    def __init__(self, joint: Joint, *, workers: int, max_queue: int, patience: float = inf) -> None:
        """Run the model by `joint`.

        `patience`: seconds that requests may take. The line is never longer than what runs in that time, as far as
        the latest runs tell, so that a request that could not be answered in time is refused at once.
        """
        self._joint = joint
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="infer", initializer=_yield_to_event_loop)
        self._max_queue = max_queue
        self._workers = workers
        self._patience = patience
        # Seconds of a thread that a request takes, of late.
        self._pace = 0.0
        self._line = Line(joint.bounds)
        # Guards the line, `_free` and `_taken`, which threads change as well.
        self._lock = threading.Lock()
        self._free = workers
        self._taken = 0
        self._settled = 0
        self.inside = 0
        self._closed = False
        self.on_run: Callable[[int, float], None] = ignore_run

    @property
    def pending(self) -> int:
        """Requests that wait or whose run has not ended, even if nobody waits for it any more."""
        return len(self._line) + self._taken - self._settled

    @property
    def capacity(self) -> int:
        """How many requests may be under way: those that run or were just answered, and a full line."""
        return self._longest + self.inside - len(self._line) + self._free

    def join(
        self,
        outputs: Sequence[str],
        inputs: dict[str, Tensor],
        seconds: float,
        waiter: Waiter,
        answerer: Answerer | None = None,
    ) -> Job:
        """Have the model run on `inputs` once a thread is free; see Place. Raises Overloaded if the line is full."""
        if not self._free and len(self._line) >= self._longest:
            raise Overloaded
        # Only read by threads, which run nothing before this.
        loop = self._loop = asyncio.get_running_loop()
        job = self._joint.job(outputs, inputs, seconds, waiter, answerer)
        job.timer = loop.call_later(seconds, self._expire, job)
        self.inside += 1
        self._begin(job)
        return job

    def leave(self, job: Job) -> None:
        """Wait for the answer to `job` no more."""
        self.inside -= 1
        if job.timer is not None:
            job.timer.cancel()
        self._abandon(job)

    def close(self) -> None:
        """Drop what waits; stop the threads as soon as what runs has ended."""
        with self._lock:
            self._closed = True
            dropped = self._line.clear()
        for job in dropped:
            if not job.waiter.done():
                job.waiter.set_exception(Unavailable("the server is shutting down"))
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _longest(self) -> int:
        if self._pace * self._max_queue <= self._patience * self._workers:
            return self._max_queue
        # One may wait whatever the pace says: it is how a pace is found that has changed.
        return max(1, int(self._patience * self._workers / self._pace))

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
        if not job.waiter.done():
            self._abandon(job)
            job.waiter.set_exception(timed_out(job))

    def _abandon(self, job: Job) -> None:
        job.gone = True
        with self._lock:
            self._line.remove(job)
        if job.run is not None:
            job.run.stop_if_deserted()

    def _settle(self, finished: Finished) -> None:
        self._settled += finished.requests
        finished.settle()
        if finished.seconds:
            pace = finished.seconds / finished.requests
            # Slower by and by, quicker at once: a single long run must not turn away those behind it.
            self._pace += (_SLOWER if pace > self._pace else _QUICKER) * (pace - self._pace)
        if finished.rows:
            self.on_run(finished.rows, finished.seconds)

    # From here on: in the threads.

    def _work(self, jobs: list[Job]) -> None:
        while jobs:
            finished = self._joint.run(jobs, self._post)
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

    def _post(self, finished: Finished) -> None:
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, finished)


def _yield_to_event_loop() -> None:
    """Have this thread come after the event loop where both want a CPU, and there are no other ones.

    Else an overloaded server reads requests as late as it runs them, and refuses them as late.
    """
    with suppress(OSError):  # only Linux has a priority for each thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICE)


def ignore_run(rows: int, seconds: float) -> None:
    """Nobody counts."""
