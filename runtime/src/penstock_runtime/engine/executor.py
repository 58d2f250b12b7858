"""Where an inference runs: at once on the event loop if tiny, else in a bounded pool of threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import onnxruntime as ort

from penstock_runtime.engine.cpu import intra_op_threads
from penstock_runtime.engine.session import Session, Tensor, Warmup
from penstock_runtime.protocol.errors import Overloaded, TimedOut

# A run shorter than this costs less than handing it to a thread and back.
INLINE_SECONDS = 200e-6
# A run on the event loop that takes this long was no tiny one after all. Three among a hundred send the model
# to the pool for a while; single ones may be the scheduler's doing.
TOO_LONG_SECONDS = 2e-3
STRIKES = 3
STRIKE_RUNS = 100
BANISHED_SECONDS = 60.0


# Models up to this size are loaded a second time if that lets them run with fewer threads.
RELOAD_BYTES = 32 * 2**20


def load_and_warm(path: Path, threads: int | None, quota: float) -> tuple[Session, Warmup]:
    """Load the model and measure it; with `threads` None it gets as many as `quota` allows, if they serve it.

    A run of a few microseconds is not made shorter by waking other threads, only dearer. Raises
    ModelLoadError.
    """
    session = Session(path, intra_op_threads(threads, quota))
    warmup = session.warm_up()
    tiny = warmup.seconds is not None and warmup.seconds < INLINE_SECONDS
    if threads is None and session.threads > 1 and tiny and path.stat().st_size <= RELOAD_BYTES:
        session = Session(path, 1)
        warmup = session.warm_up()
    return session, warmup


class Ran(NamedTuple):
    """The outputs of a run, the seconds it waited for a thread, and the seconds it took."""

    outputs: list[Tensor]
    queued: float
    ran: float


class Executor:
    """Runs one session: at most `workers` at once, at most `max_queue` waiting.

    Requests of up to `inline_elements` input elements run on the event loop, which is then the queue.
    """

    def __init__(self, session: Session, *, workers: int, max_queue: int, warmup: Warmup) -> None:
        """`warmup` tells what one row takes; where it failed nothing runs inline."""
        self._session = session
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self._pending = 0
        self._strikes = 0
        self._runs = 0
        self._inline_again = 0.0
        self.capacity = workers + max_queue
        self.inline_elements = 0
        if warmup.seconds is not None and warmup.seconds < INLINE_SECONDS:
            self.inline_elements = int(warmup.elements * INLINE_SECONDS / max(warmup.seconds, 1e-6))

    @property
    def pending(self) -> int:
        """Inferences running in, or waiting for, a thread."""
        return self._pending

    async def run(self, outputs: Sequence[str], inputs: dict[str, Tensor], seconds: float) -> Ran:
        """Run the model on `inputs` within `seconds`.

        Raises Overloaded if the queue is full, TimedOut if the time is up (a waiting inference is dropped,
        a running one is told to stop), and what Session.run raises. Time is not kept of inline runs.
        """
        start = time.perf_counter()
        if sum([array.size for array in inputs.values()]) <= self.inline_elements and (start >= self._inline_again):
            result = self._session.run(outputs, inputs)
            ran = time.perf_counter() - start
            self._watch(ran, start)
            return Ran(result, 0.0, ran)
        return await self._run_in_pool(outputs, inputs, seconds)

    def _watch(self, ran: float, now: float) -> None:
        self._runs += 1
        if ran > TOO_LONG_SECONDS:
            self._strikes += 1
            if self._strikes >= STRIKES:
                self._inline_again = now + BANISHED_SECONDS
                self._runs = STRIKE_RUNS
        if self._runs >= STRIKE_RUNS:
            self._runs = self._strikes = 0

    async def _run_in_pool(self, outputs: Sequence[str], inputs: dict[str, Tensor], seconds: float) -> Ran:
        if self._pending >= self.capacity:
            raise Overloaded
        options = ort.RunOptions()
        asked = time.perf_counter()

        def work() -> Ran:
            start = time.perf_counter()
            result = self._session.run(outputs, inputs, options)
            return Ran(result, start - asked, time.perf_counter() - start)

        self._pending += 1
        job = self._pool.submit(work)
        future = asyncio.wrap_future(job)
        future.add_done_callback(self._settle)
        done, _ = await asyncio.wait((future,), timeout=seconds)
        if not done:
            # A job that runs cannot be cancelled: it stays pending until ONNX Runtime heeds the word.
            options.terminate = True
            job.cancel()
            raise TimedOut(f"no answer within {seconds:g} s")
        return future.result()

    def _settle(self, future: asyncio.Future[Ran]) -> None:
        self._pending -= 1
        if not future.cancelled():
            future.exception()  # retrieved: nobody waits for it after a timeout

    def close(self) -> None:
        """Stop the threads as soon as what runs has ended."""
        self._pool.shutdown(wait=False, cancel_futures=True)
