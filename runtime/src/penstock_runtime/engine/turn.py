"""Tiny requests that a thread works on in one turn: the first runs at once, those behind it together.

A turn begins with the first request after the thread has looked for what came in, and ends when all that came in
has been worked on. So nothing is waited for, and a request that comes by itself runs as ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence

from penstock_runtime.engine.job import Answerer, Job, Waiter
from penstock_runtime.engine.joint import Finished, Joint
from penstock_runtime.engine.session import Tensor


class Turn:
    """The place of those that wait for a turn's end; nobody's time is up before. It belongs to one thread.

    `on_run` is called for each run that ended well, with its requests, rows and seconds.
    """

    def __init__(
        self, joint: Joint, on_run: Callable[[int, int, float], None], at_end: Callable[[Callable[[], None]], object]
    ) -> None:
        """Run the model by `joint`. `at_end` has something called at the turn's end."""
        self._joint = joint
        self._at_end = at_end
        self._groups: dict[Hashable, deque[Job]] = {}
        self._on_run = on_run
        self._open = False
        self.inside = 0

    def first(self) -> bool:
        """Return whether the caller is the first of its turn, and begin the turn if so."""
        if self._open:
            return False
        self._open = True
        self._at_end(self._end)
        return True

    def join(
        self,
        outputs: Sequence[str],
        inputs: dict[str, Tensor],
        seconds: float,
        waiter: Waiter,
        answerer: Answerer | None = None,
    ) -> Job:
        """Have the model run on `inputs` at the turn's end; see Place."""
        job = self._joint.job(outputs, inputs, seconds, waiter, answerer)
        # One that must run alone is a group of its own.
        jobs = self._groups.get(job.group or job)
        if jobs is None:
            self._groups[job.group or job] = deque((job,))
        else:
            jobs.append(job)
        self.inside += 1
        return job

    def leave(self, job: Job) -> None:
        """Wait for the answer to `job` no more."""
        self.inside -= 1
        job.gone = True

    def _end(self) -> None:
        jobs = self._take()
        # A run at a time, so that a line of many groups does not hold up everything else.
        self._open = len(self._groups) > 0
        if self._open:
            self._at_end(self._end)
        if jobs:
            self._tell(self._joint.run(jobs, self._tell))

    def _take(self) -> list[Job]:
        """Remove and return the jobs of the oldest group, as many as one run may have."""
        if not self._groups:
            return []
        group, waiting = next(iter(self._groups.items()))
        taken: list[Job] = []
        rows = size = 0
        bounds = self._joint.bounds
        while waiting:
            job = waiting[0]
            if not job.gone:
                rows += job.rows
                size += job.size
                if taken and (rows > bounds.rows or size > bounds.size):
                    break
                taken.append(job)
            waiting.popleft()
        if not waiting:
            del self._groups[group]
        return taken

    def _tell(self, finished: Finished) -> None:
        finished.settle()
        if finished.rows:
            self._on_run(finished.requests, finished.rows, finished.seconds)
