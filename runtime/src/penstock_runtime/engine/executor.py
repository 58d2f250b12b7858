"""Where an inference runs: at once on the event loop if tiny, else in a bounded pool of threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import onnxruntime as ort

from penstock_runtime.engine.session import Session, Tensor
from penstock_runtime.protocol.errors import Overloaded, TimedOut

# A run shorter than this costs less than handing it to a thread and back.
INLINE_SECONDS = 200e-6


class Ran(NamedTuple):
    """The outputs of a run, the seconds it waited for a thread, and the seconds it took."""

    outputs: list[Tensor]
    queued: float
    ran: float


class Executor:
    """Runs one session: at most `workers` at once, at most `max_queue` waiting."""

    def __init__(self, session: Session, *, workers: int, max_queue: int, row_seconds: float | None) -> None:
        """`row_seconds` is the measured time of one row, None where it is not known (never inline)."""
        self._session = session
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self._capacity = workers + max_queue
        self._pending = 0
        self.inline_rows = 0
        if row_seconds is not None and row_seconds < INLINE_SECONDS:
            self.inline_rows = int(INLINE_SECONDS / max(row_seconds, 1e-6))

    @property
    def pending(self) -> int:
        """Inferences running in, or waiting for, a thread."""
        return self._pending

    async def run(self, outputs: Sequence[str], inputs: dict[str, Tensor], rows: int, seconds: float) -> Ran:
        """Run the model on `inputs` of `rows` rows within `seconds`.

        Raises Overloaded if the queue is full, TimedOut if the time is up (a waiting inference is dropped,
        a running one is told to stop), and what Session.run raises.
        """
        if rows <= self.inline_rows:
            start = time.perf_counter()
            result = self._session.run(outputs, inputs)
            return Ran(result, 0.0, time.perf_counter() - start)
        return await self._run_in_pool(outputs, inputs, seconds)

    async def _run_in_pool(self, outputs: Sequence[str], inputs: dict[str, Tensor], seconds: float) -> Ran:
        if self._pending >= self._capacity:
            raise Overloaded("too many requests are waiting; try again later")
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
        """Stop the threads once what runs has ended."""
        self._pool.shutdown(wait=True, cancel_futures=True)
