"""Tiny requests that the event loop works on in one turn: the first runs at once, those behind it together.

A turn begins with the first request after the event loop has looked for what came in, and ends when all that
came in has been worked on. So nothing is waited for, and a request that comes by itself runs as ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from penstock_runtime.engine.joint import Finished, Joint
from penstock_runtime.engine.line import Job, Line, Ran
from penstock_runtime.engine.rows import count_bytes, count_rows, group_of
from penstock_runtime.engine.session import Tensor

FOREVER = float("inf")


class Turn:
    """The line of one event loop's turn. `on_finished` is called for each run, with its seconds."""

    def __init__(self, joint: Joint, on_finished: Callable[[Finished], None]) -> None:
        """Run the model by `joint`."""
        self._joint = joint
        self._line = Line(joint.bounds)
        self._on_finished = on_finished
        self._open = False
        self.inside = 0

    def first(self) -> bool:
        """Return whether the caller is the first of its turn, and begin the turn if so."""
        if self._open:
            return False
        self._open = True
        asyncio.get_running_loop().call_soon(self._end)
        return True

    def join(self, outputs: Sequence[str], inputs: dict[str, Tensor]) -> asyncio.Future[Ran]:
        """Have the model run on `inputs` at the turn's end; the future raises what Session.run raises.

        Cancelling it takes the request out of the line.
        """
        future: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        group = group_of(outputs, inputs) if self._joint.bounds.rows > 1 else None
        job = Job(outputs, inputs, count_rows(inputs), count_bytes(inputs), group, time.perf_counter(), FOREVER, future)
        self._line.add(job)
        self.inside += 1
        future.add_done_callback(lambda _: self._leave(job))
        return future

    def _leave(self, job: Job) -> None:
        self.inside -= 1
        self._line.remove(job)

    def _end(self) -> None:
        jobs = self._line.take(0.0)
        # A run at a time, so that a line of many groups does not hold up everything else.
        self._open = len(self._line) > 0
        if self._open:
            asyncio.get_running_loop().call_soon(self._end)
        if jobs:
            self._tell(self._joint.run(jobs, self._tell))

    def _tell(self, finished: Finished) -> None:
        finished.settle()
        self._on_finished(finished)
