"""The requests that wait for a thread, in the order of their arrival. No threads, no clock: only order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from penstock_runtime.engine.job import Job


@dataclass(slots=True)
class Bounds:
    """The most rows, and bytes of input, of a run of several requests; 1 row: each runs alone."""

    rows: int
    # Beyond it a run gains little by more rows, and the memory that the model takes for them is felt.
    size: int = 4 * 2**20


class Line:
    """First come, first served; the oldest takes with it those of its group that fit into one run."""

    def __init__(self, bounds: Bounds) -> None:
        """A run keeps to `bounds`, unless one request alone is larger."""
        self._bounds = bounds
        self._all: OrderedDict[Job, None] = OrderedDict()
        self._groups: dict[Hashable, OrderedDict[Job, None]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._all)

    def add(self, job: Job) -> None:
        """Let `job` wait."""
        self._all[job] = None
        if job.group is not None:
            self._groups.setdefault(job.group, OrderedDict())[job] = None

    def remove(self, job: Job) -> None:
        """Let `job` wait no more; nothing happens if it does not wait."""
        if job not in self._all:
            return
        del self._all[job]
        if job.group is not None:
            group = self._groups[job.group]
            del group[job]
            if not group:
                del self._groups[job.group]

    def take(self, now: float) -> list[Job]:
        """Remove and return the oldest job and, in their order, those that share its run; [] if none waits.

        Those whose time was up at `now` are dropped on the way.
        """
        while self._all:
            head = next(iter(self._all))
            self.remove(head)
            if head.deadline > now:
                return [head, *self._followers(head, now)]
        return []

    def _followers(self, head: Job, now: float) -> list[Job]:
        followers: list[Job] = []
        rows, size = head.rows, head.size
        while head.group in self._groups and rows < self._bounds.rows:
            job = next(iter(self._groups[head.group]))
            if job.deadline > now:
                rows += job.rows
                size += job.size
                if rows > self._bounds.rows or size > self._bounds.size:
                    break
                followers.append(job)
            self.remove(job)
        return followers

    def clear(self) -> list[Job]:
        """Remove and return all."""
        jobs = list(self._all)
        self._all.clear()
        self._groups.clear()
        return jobs
