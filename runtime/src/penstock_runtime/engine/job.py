"""What is asked of the model, what comes of it, and who waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import onnxruntime as ort

from penstock_runtime.engine.session import Tensor


class Ran(NamedTuple):
    """A request's outputs, the seconds it waited for a thread, and the seconds and rows of the run it was part of."""

    outputs: list[Tensor]
    queued: float
    ran: float
    rows: int


class Together(NamedTuple):
    """A run of several jobs: all their rows of every output, in their order; when it began and what it took."""

    outputs: list[Tensor]
    start: float
    seconds: float
    rows: int


class Waiter(Protocol):
    """Who waits for a run; asyncio's futures do."""

    def done(self) -> bool:
        """Return whether nothing is waited for any more."""

    def set_result(self, result: Any, /) -> None:
        """Hear what came of it."""

    def set_exception(self, exception: Any, /) -> None:
        """Hear why nothing came of it."""


@dataclass(eq=False, slots=True)
class Job:
    """One request. `group` None: it runs alone. `asked` and `deadline` are perf_counter() seconds.

    `gone` is set once nobody waits for the answer; `run` is the run that it takes part in, `timer` what ends its
    waiting. Jobs of one run that have an `answerer`, which is the same then, are answered by that.
    """

    outputs: Sequence[str]
    inputs: dict[str, Tensor]
    rows: int
    size: int
    group: Hashable | None
    asked: float
    seconds: float
    waiter: Waiter
    answerer: Answerer | None = None
    gone: bool = False
    run: Run | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def deadline(self) -> float:
        """When its time is up."""
        return self.asked + self.seconds


# Answers jobs that have been run together. Answered one after the other, each step would find its code and data
# pushed out of the CPU's cache by the others.
Answerer = Callable[[Sequence[Job], Together], None]


class Run:
    """One run of the model for some jobs, which stops when none of them waits any more."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        """Make it the run of all `jobs`."""
        self.options = ort.RunOptions()
        self._jobs = jobs
        for job in jobs:
            job.run = self
        # A job may have gone between its being taken and this line.
        self.stop_if_deserted()

    def stop_if_deserted(self) -> None:
        """Tell ONNX Runtime to stop if every job is gone; it heeds that in its own time."""
        if all(job.gone for job in self._jobs):
            self.options.terminate = True


class Place(Protocol):
    """Where requests wait until the model is run for them. All calls come from the event loop."""

    def join(
        self,
        outputs: Sequence[str],
        inputs: dict[str, Tensor],
        seconds: float,
        waiter: Waiter,
        answerer: Answerer | None = None,
    ) -> Job:
        """Have the model run on `inputs` within `seconds`; `waiter` is told what comes of it.

        That is what Session.run returns or raises, or TimedOut. Where it runs together with others of the same
        `answerer`, that is told instead. Once told, or before to wait no more, it has to `leave`. Raises Overloaded.
        """

    def leave(self, job: Job) -> None:
        """Wait no more: a request in the line is dropped, a run that nobody waits for is told to stop."""


async def run_in(place: Place, outputs: Sequence[str], inputs: dict[str, Tensor], seconds: float) -> Ran:
    """Return what comes of running the model on `inputs`, or raise it; see Place.join."""
    future: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
    job = place.join(outputs, inputs, seconds, future)
    try:
        return await future
    finally:
        place.leave(job)
