"""Where an inference runs: at once on the event loop if tiny, else in the pool of threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

import onnxruntime as ort

from penstock_runtime.engine.batchable import ALONE, Batching
from penstock_runtime.engine.compute import ON_CPU, Compute
from penstock_runtime.engine.cpu import intra_op_threads
from penstock_runtime.engine.job import Place, Ran, run_in
from penstock_runtime.engine.joint import Joint
from penstock_runtime.engine.line import Bounds
from penstock_runtime.engine.pool import Pool, ignore_run
from penstock_runtime.engine.rows import count_rows
from penstock_runtime.engine.session import Session, Tensor, Warmup
from penstock_runtime.engine.turn import Turn
from penstock_runtime.protocol.errors import Overloaded, ProtocolError, TimedOut

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


def load_and_warm(
    path: Path,
    threads: int | None,
    quota: float,
    custom_domains: Collection[str] = (),
    compute: Compute = ON_CPU,
) -> tuple[Session, Warmup]:
    """Load the model and measure it; with `threads` None it gets as many as `quota` allows, if they serve it.

    A run of a few microseconds is not made shorter by waking other threads, only dearer. Raises
    ModelLoadError.
    """
    session = Session(path, intra_op_threads(threads, quota), custom_domains, compute)
    warmup = session.warm_up()
    tiny = warmup.seconds is not None and warmup.seconds < INLINE_SECONDS
    if threads is None and session.threads > 1 and tiny and path.stat().st_size <= RELOAD_BYTES:
        session = Session(path, 1, custom_domains, compute)
        warmup = session.warm_up()
    return session, warmup


def call_soon(call: Callable[[], None]) -> None:
    """Have `call` called at the end of this turn of the running event loop."""
    asyncio.get_running_loop().call_soon(call)


class Executor:
    """Runs one session: at most `workers` runs at once, at most `max_queue` requests waiting.

    Requests of up to `inline_elements` input elements run on the event loop, which is then the queue.
    """

    def __init__(
        self,
        session: Session,
        *,
        workers: int,
        max_queue: int,
        warmup: Warmup,
        batching: Batching = ALONE,
        patience: float = inf,
    ) -> None:
        """`warmup` tells what one row takes; where it failed nothing runs inline. `patience`: see Pool.

        `batching` tells how many rows may run together, and whether they gain by it.
        """
        self._session = session
        joint = Joint(session, Bounds(batching.max_rows))
        self._pool = Pool(joint, workers=workers, max_queue=max_queue, patience=patience)
        self._joint = joint
        self._gains = batching.saved > 0.0
        self._turn = self.turn(call_soon, self.tell_run)
        self._idle_capacity = workers + max_queue
        self._on_run = self._pool.on_run
        self._strikes = 0
        self._runs = 0
        self._inline_again = 0.0
        self._apart: ort.RunOptions | None = None
        self.inline_elements = 0
        if warmup.seconds is not None and warmup.seconds < INLINE_SECONDS:
            self.inline_elements = int(warmup.elements * INLINE_SECONDS / max(warmup.seconds, 1e-6))

    @property
    def pending(self) -> int:
        """Requests that wait for a thread, and those whose run in one has not ended."""
        return self._pool.pending + (self._apart is not None)

    @property
    def capacity(self) -> int:
        """How many requests may be under way at the moment before the next one is too many."""
        capacity = self._pool.capacity if self._pool.inside else self._idle_capacity
        return capacity if self._turn is None else capacity + self._turn.inside

    @property
    def on_run(self) -> Callable[[int, float], None]:
        """What is called, on the event loop, with the rows and seconds of each run of the model that ended well."""
        return self._on_run

    @on_run.setter
    def on_run(self, call: Callable[[int, float], None]) -> None:
        self._on_run = self._pool.on_run = call

    async def run(self, outputs: Sequence[str], inputs: dict[str, Tensor], seconds: float) -> Ran:
        """Run the model on `inputs` within `seconds`.

        Raises Overloaded if the queue is full, TimedOut if the time is up (a waiting request is dropped, a
        run that nobody waits for is told to stop), and what Session.run raises. Time is not kept of inline
        runs.
        """
        begun = self.begin(outputs, inputs)
        if not isinstance(begun, Ran):
            return await run_in(begun, outputs, inputs, seconds)
        self._on_run(begun.rows, begun.ran)
        return begun

    def begin(self, outputs: Sequence[str], inputs: dict[str, Tensor]) -> Ran | Place:
        """Run the model on `inputs` now if they are tiny, and are the first that came; else return where to wait.

        Raises what Session.run raises. Time is not kept. A run that is over is told to nobody: the caller has to count
        it.
        """
        return self.begin_in(self._turn, outputs, inputs) or self._pool

    def begin_in(self, turn: Turn | None, outputs: Sequence[str], inputs: dict[str, Tensor]) -> Ran | Turn | None:
        """The same in the thread that `turn` belongs to, or any thread without one; None: it is not tiny."""
        start = time.perf_counter()
        elements = 0
        for array in inputs.values():
            elements += array.size
        if elements > self.inline_elements or start < self._inline_again:
            return None
        if turn is not None and not turn.first():
            return turn
        # Two threads that count strikes at once may lose one; no harm in that.
        return self._run_tiny(outputs, inputs, start)

    def turn(self, at_end: Callable[[Callable[[], None]], object], tell: Callable[[int, float], None]) -> Turn | None:
        """Return the turn of a thread that calls back by `at_end`; None if requests gain nothing by company.

        `tell` is called in that thread with the rows and seconds of each run that ended well.
        """

        def count(requests: int, rows: int, seconds: float) -> None:
            # One by one, they would have kept the thread longer.
            self._watch(seconds / requests, time.perf_counter())
            tell(rows, seconds)

        return Turn(self._joint, count, at_end) if self._gains else None

    def _run_tiny(self, outputs: Sequence[str], inputs: dict[str, Tensor], start: float) -> Ran:
        result = self._session.run(outputs, inputs)
        ran = time.perf_counter() - start
        if ran > TOO_LONG_SECONDS or self._strikes:
            # A process that had to wait for the CPU looks like a slow model: the same run once more tells them apart.
            self._watch(ran if ran <= TOO_LONG_SECONDS else min(ran, self._time(outputs, inputs)), start)
        return Ran(result, 0.0, ran, count_rows(inputs))

    def _time(self, outputs: Sequence[str], inputs: dict[str, Tensor]) -> float:
        start = time.perf_counter()
        with suppress(ProtocolError):
            self._session.run(outputs, inputs)
        return time.perf_counter() - start

    async def run_apart(self, outputs: Sequence[str], inputs: dict[str, Tensor], seconds: float) -> Ran:
        """Run the model beside the requests, which do not wait for it, and uncounted; at most one at a time.

        Raises Overloaded if one is under way, TimedOut if `seconds` are over, and what Session.run raises.
        """
        if self._apart is not None:
            raise Overloaded
        options = self._apart = ort.RunOptions()
        begun = False
        start = time.perf_counter()

        def run() -> list[Tensor]:
            nonlocal begun
            begun = True
            try:
                return self._session.run(outputs, inputs, options)
            finally:
                if self._apart is options:
                    self._apart = None

        try:
            async with asyncio.timeout(seconds):
                result = await asyncio.to_thread(run)
        except TimeoutError:
            raise TimedOut(f"no answer within {seconds:g} s") from None
        finally:
            options.terminate = True
            if not begun:
                self._apart = None
        return Ran(result, 0.0, time.perf_counter() - start, count_rows(inputs))

    def tell_run(self, rows: int, seconds: float) -> None:
        """Call whatever `on_run` is by now; on the event loop."""
        self._on_run(rows, seconds)

    def _watch(self, ran: float, now: float) -> None:
        self._runs += 1
        if ran > TOO_LONG_SECONDS:
            self._strikes += 1
            if self._strikes >= STRIKES:
                self._inline_again = now + BANISHED_SECONDS
                self._runs = STRIKE_RUNS
        if self._runs >= STRIKE_RUNS:
            self._runs = self._strikes = 0

    def close(self) -> None:
        """Stop the threads as soon as what runs has ended."""
        self._pool.close()
        # These refer back to us: without them a retired model's memory is free at once, not when the garbage
        # collector comes, which never looks at what was frozen.
        self._turn = None
        self.on_run = ignore_run
