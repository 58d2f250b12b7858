"""Runs of the model for one or several requests, so that no request suffers from its neighbours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from penstock_runtime.engine.job import Answerer, Job, Ran, Run, Together, Waiter
from penstock_runtime.engine.line import Bounds
from penstock_runtime.engine.rows import NotByRow, check_rows, count_bytes, count_rows, group_of, join, split
from penstock_runtime.engine.session import Session, Tensor
from penstock_runtime.log import event
from penstock_runtime.protocol.errors import TimedOut

logger = logging.getLogger(__name__)

# Runs together that fail though each of their requests succeeds alone: so many, and it is given up.
MAX_DOUBTS = 3


class Finished(Protocol):
    """What became of some jobs."""

    @property
    def requests(self) -> int:
        """How many jobs these are."""

    @property
    def rows(self) -> int:
        """The rows of the run that they shared; 0 if none ended well."""

    @property
    def seconds(self) -> float:
        """The seconds that it took."""

    def settle(self) -> None:
        """Give every job its answer or error; on the event loop."""


class Each(NamedTuple):
    """Jobs and what each has for an answer."""

    results: Sequence[tuple[Job, Ran | Exception]]
    rows: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """How many jobs these are."""
        return len(self.results)

    def settle(self) -> None:
        """Give every job its answer or error."""
        for job, result in self.results:
            _forget(job)
            if job.waiter.done():
                continue
            if isinstance(result, Ran):
                job.waiter.set_result(result)
            else:
                job.waiter.set_exception(result)


class All(NamedTuple):
    """Jobs of one run, and who answers them."""

    jobs: Sequence[Job]
    together: Together
    answerer: Answerer

    @property
    def requests(self) -> int:
        """How many jobs these are."""
        return len(self.jobs)

    @property
    def rows(self) -> int:
        """The rows of the run that they shared."""
        return self.together.rows

    @property
    def seconds(self) -> float:
        """The seconds that it took."""
        return self.together.seconds

    def settle(self) -> None:
        """Have every job answered."""
        for job in self.jobs:
            _forget(job)
        self.answerer(self.jobs, self.together)


def _forget(job: Job) -> None:
    # Else a job and its run keep each other, and their arrays, until the garbage collector comes.
    job.run = None
    job.inputs = {}


class Joint:
    """Runs jobs together within `bounds`, which it narrows to single requests if the model proves unfit.

    May be called from several threads at once.
    """

    def __init__(self, session: Session, bounds: Bounds) -> None:
        """Run them in `session`."""
        self.bounds = bounds
        self._session = session
        self._doubts = 0

    def job(
        self,
        outputs: Sequence[str],
        inputs: dict[str, Tensor],
        seconds: float,
        waiter: Waiter,
        answerer: Answerer | None,
    ) -> Job:
        """Return what is to be run for `waiter`, of the group that it can share a run with; see Place.join."""
        group = group_of(outputs, inputs, answerer) if self.bounds.rows > 1 else None
        rows, size, now = count_rows(inputs), count_bytes(inputs), time.perf_counter()
        return Job(outputs, inputs, rows, size, group, now, seconds, waiter, answerer)

    def run(self, jobs: Sequence[Job], tell: Callable[[Finished], None]) -> Finished:
        """Run `jobs`, which are of one group, as one; where that fails, each alone.

        Then all but the last are told as they are done; what is left to tell is returned.
        """
        together = self._run_together(jobs) if len(jobs) > 1 else None
        if together is None:
            return self._run_each(jobs, tell)
        answerer = jobs[0].answerer
        if answerer is None:
            return Each(parts_of(jobs, together), together.rows, together.seconds)
        return All(jobs, together, answerer)

    def _run_together(self, jobs: Sequence[Job]) -> Together | None:
        start = time.perf_counter()
        rows = sum([job.rows for job in jobs])
        try:
            inputs = join([job.inputs for job in jobs])
            outputs = self._session.run(jobs[0].outputs, inputs, Run(jobs).options)
            check_rows(outputs, rows)
        except NotByRow as error:
            self._give_up(str(error))
            return None
        except Exception:  # noqa: BLE001 - whatever one of them did to the others: each gets a run of its own
            return None
        return Together(outputs, start, time.perf_counter() - start, rows)

    def _run_each(self, jobs: Sequence[Job], tell: Callable[[Finished], None]) -> Finished:
        *others, last = jobs
        failed = False
        for job in others:
            finished = self._run_alone(job)
            failed = failed or not finished.rows
            tell(finished)
        finished = self._run_alone(last)
        if others and not failed and finished.rows:
            self._doubts += 1
            if self._doubts == MAX_DOUBTS:
                self._give_up("runs of several failed, though each of their requests succeeds alone")
        return finished

    def _give_up(self, reason: str) -> None:
        if self.bounds.rows > 1:
            self.bounds.rows = 1
            event(logger, "requests are no longer run together", level=logging.WARNING, reason=reason)

    def _run_alone(self, job: Job) -> Finished:
        options = Run([job]).options
        start = time.perf_counter()
        if job.gone or job.deadline <= start:
            return Each([(job, timed_out(job))])
        try:
            outputs = self._session.run(job.outputs, job.inputs, options)
        except Exception as error:  # noqa: BLE001 - raised again where the answer is waited for
            return Each([(job, error)])
        ran = time.perf_counter() - start
        return Each([(job, Ran(outputs, start - job.asked, ran, job.rows))], job.rows, ran)


def parts_of(jobs: Sequence[Job], together: Together) -> list[tuple[Job, Ran]]:
    """Return what `together` gave each of `jobs`."""
    outputs, start, seconds, rows = together
    parts = split(outputs, [job.rows for job in jobs])
    return [(job, Ran(part, start - job.asked, seconds, rows)) for job, part in zip(jobs, parts, strict=True)]


def timed_out(job: Job) -> TimedOut:
    """Return the error for a job whose time is up."""
    return TimedOut(f"no answer within {job.seconds:g} s")
