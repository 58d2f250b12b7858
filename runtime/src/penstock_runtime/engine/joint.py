"""Runs of the model for one or several requests, so that no request suffers from its neighbours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from penstock_runtime.engine.line import Bounds, Job, Ran, Run
from penstock_runtime.engine.rows import NotByRow, join, split
from penstock_runtime.engine.session import Session
from penstock_runtime.log import event
from penstock_runtime.protocol.errors import TimedOut

logger = logging.getLogger(__name__)

# Runs together that fail though each of their requests succeeds alone: so many, and it is given up.
MAX_DOUBTS = 3


class Finished(NamedTuple):
    """What became of jobs, and the rows and seconds of the run that they shared; 0 if none ended well."""

    results: Sequence[tuple[Job, Ran | Exception]]
    rows: int = 0
    seconds: float = 0.0

    def settle(self) -> None:
        """Give every job its answer or error; on the event loop."""
        for job, result in self.results:
            # Else a job and its run keep each other, and their arrays, until the garbage collector comes.
            job.run = None
            job.inputs = {}
            if job.future.done():
                continue
            if isinstance(result, Ran):
                job.future.set_result(result)
            else:
                job.future.set_exception(result)


class Joint:
    """Runs jobs together within `bounds`, which it narrows to single requests if the model proves unfit.

    May be called from several threads at once.
    """

    def __init__(self, session: Session, bounds: Bounds) -> None:
        """Run them in `session`."""
        self.bounds = bounds
        self._session = session
        self._doubts = 0

    def run(self, jobs: Sequence[Job], tell: Callable[[Finished], None]) -> Finished:
        """Run `jobs`, which are of one group, as one; where that fails, each alone.

        Then all but the last are told as they are done; what is left to tell is returned.
        """
        return (self._run_together(jobs) if len(jobs) > 1 else None) or self._run_each(jobs, tell)

    def _run_together(self, jobs: Sequence[Job]) -> Finished | None:
        start = time.perf_counter()
        try:
            inputs = join([job.inputs for job in jobs])
            outputs = self._session.run(jobs[0].outputs, inputs, Run(jobs).options)
            parts = split(outputs, [job.rows for job in jobs])
        except NotByRow as error:
            self._give_up(str(error))
            return None
        except Exception:  # noqa: BLE001 - whatever one of them did to the others: each gets a run of its own
            return None
        ran = time.perf_counter() - start
        rows = sum(job.rows for job in jobs)
        results = [(job, Ran(part, start - job.asked, ran, rows)) for job, part in zip(jobs, parts, strict=True)]
        return Finished(results, rows, ran)

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
            return Finished([(job, timed_out(job))])
        try:
            outputs = self._session.run(job.outputs, job.inputs, options)
        except Exception as error:  # noqa: BLE001 - raised again where the answer is waited for
            return Finished([(job, error)])
        ran = time.perf_counter() - start
        return Finished([(job, Ran(outputs, start - job.asked, ran, job.rows))], job.rows, ran)


def timed_out(job: Job) -> TimedOut:
    """Return the error for a job whose time is up."""
    return TimedOut(f"no answer within {job.seconds:g} s")
