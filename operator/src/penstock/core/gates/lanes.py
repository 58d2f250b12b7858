"""Open blocks: which pods' scrapes go in, and when a block closes.

A block closes at a scrape, once every pod in it has moved on by the block's length since it entered: all windows
are then equally long, and a missed scrape just makes the block longer. The rules look at trial counts and times,
never at outcomes: that is what the guarantees rest on. A pod silent for 150 s is no longer waited for while its
arm has another; where it is its arm's only one, the block waits for it, since stable alone teaches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from penstock.core.gates.frames import Step
from penstock.core.gates.record import Arm, Cursor, Lane, Tally
from penstock.core.gates.samples import PodFact

SILENT = 150.0
_ARMS: tuple[Arm, Arm] = ("canary", "stable")


class OpenBlock:
    """A lane being worked on; `lane()` gives it back as data."""

    def __init__(self, lane: Lane, seconds: float, patience: float = SILENT) -> None:
        self.seconds = seconds
        self.patience = patience
        self.opened = lane.opened
        self.members = dict(lane.members)
        self.tallies: dict[Arm, Tally] = {"canary": lane.canary, "stable": lane.stable}

    def lane(self) -> Lane:
        """The lane as immutable data."""
        return Lane(self.opened, self.members, self.tallies["canary"], self.tallies["stable"])

    def count(self, arm: Arm, n: int, bad: int, at: float, buckets: tuple[int, ...] | None = None) -> None:
        """Add increments to an arm's counts."""
        t = self.tallies[arm]
        rise = t.buckets
        if buckets is not None:
            rise = tuple(a + b for a, b in zip(rise, buckets, strict=True)) if rise else buckets
        self.tallies[arm] = Tally(t.n + n, t.bad + bad, rise, max(t.until, at))

    def due(self, cursors: Mapping[str, Cursor], pods: Mapping[str, PodFact], at: float) -> bool:
        """Whether every living member that is not given up has moved on by the block's length."""
        if self.opened is None:
            return False
        least = self.seconds - min(1.0, 0.1 * self.seconds)
        return at - self.opened >= least and all(
            cursors[pod].at - entered >= least
            for pod, entered in self.members.items()
            if pod in pods and at - cursors[pod].at <= self.patience
        )

    def filled(self) -> bool:
        """Whether both arms have trials."""
        return self.tallies["canary"].n >= 1 and self.tallies["stable"].n >= 1

    def open(self, at: float, members: Mapping[str, float]) -> None:
        """Begin a new block with nothing counted."""
        self.opened = at
        self.members = dict(members)
        self.tallies = {"canary": Tally(until=at), "stable": Tally(until=at)}

    def drop(self) -> None:
        """Discard the open block."""
        self.opened = None
        self.members = {}
        self.tallies = {"canary": Tally(), "stable": Tally()}


class Traffic:
    """The block of requests that errors and latency are judged on: warm pods of both arms.

    Cold starts: a pod of either arm enters with the first block that begins after it is warm, so its cold
    increments are never counted. Stable's increments count from the moment one canary pod is measured; before that
    they are dropped, because there is nothing of the same time to compare them with. Further canary pods that come
    cold, at each scale-up, leave the warm ones' evidence alone. A changed weight ends the block, and the scrape
    interval in which it changed is dropped: within a block the odds of being routed to the canary are constant.
    """

    def __init__(self, lane: Lane, seconds: float) -> None:
        self.block = OpenBlock(lane, seconds, patience=inf)
        self.births: dict[str, Step] = {}

    def frame(self, pod: str, step: Step, born_warm: bool) -> None:
        """Take in one scrape's increments."""
        fresh = (step.newborn or step.restarted) and born_warm
        if step.lost or (step.restarted and not fresh):
            self.block.members.pop(pod, None)
        elif fresh and self.block.opened is None:
            self.births[pod] = step
        elif fresh or pod in self.block.members:
            self.block.members.setdefault(pod, self.block.opened or step.cursor.at)
            self._add(step)

    def settle(
        self, at: float, cursors: Mapping[str, Cursor], pods: Mapping[str, PodFact], barrier: float | None
    ) -> Lane | None:
        """End of one instant: the block that closes now, if one does. barrier: no window begins before it.

        Living members have all moved on by the block's length, however far apart they are scraped; a deleted one may
        have stopped long ago.
        """
        closed = None
        if self.block.opened is not None:
            self._forget_silent(at, cursors)
            ripe, paired = self.block.filled() and self.block.due(cursors, pods, at), self._both_arms(cursors)
            if ripe and paired and self.block.members.keys() <= pods.keys():
                closed = self.block.lane()
                self.block.drop()
            elif ripe or not paired:
                closed = self.cut()
        if self.block.opened is None:
            self._try_open(at, cursors, pods, barrier)
        self.births = {}
        return closed

    def cut(self) -> Lane | None:
        """End the block early: given back if both arms have trials of the same stretch of time, else discarded."""
        lane = self.block.lane()
        usable = self.block.filled() and abs(lane.canary.until - lane.stable.until) <= self.block.seconds
        self.block.drop()
        return lane if usable else None

    def forget_deleted(self, cursors: Mapping[str, Cursor], pods: Mapping[str, PodFact]) -> Lane | None:
        """Let go of deleted pods once their last scrapes are in; a block left with one arm is cut."""
        if self.block.opened is None:
            return None
        self.block.members = {p: t for p, t in self.block.members.items() if p in pods}
        return None if self._both_arms(cursors) else self.cut()

    def _add(self, step: Step) -> None:
        self.block.count(step.cursor.arm, step.n, step.bad, step.cursor.at, step.buckets)

    def _both_arms(self, cursors: Mapping[str, Cursor]) -> bool:
        return {cursors[p].arm for p in self.block.members} == set(_ARMS)

    def _forget_silent(self, at: float, cursors: Mapping[str, Cursor]) -> None:
        for arm in _ARMS:
            mine = [p for p in self.block.members if cursors[p].arm == arm]
            silent = [p for p in mine if at - cursors[p].at > SILENT]
            if len(silent) < len(mine):
                for pod in silent:
                    del self.block.members[pod]

    def _try_open(
        self, at: float, cursors: Mapping[str, Cursor], pods: Mapping[str, PodFact], barrier: float | None
    ) -> None:
        ready = {p: c.at for p, c in cursors.items() if c.warm and p in pods and at - c.at <= SILENT}
        if {cursors[p].arm for p in ready} != set(_ARMS):
            return
        if barrier is not None and any(t < barrier for t in ready.values()):
            return
        self.block.open(at, ready)
        for step in self.births.values():
            self._add(step)


class Requests:
    """All requests of both arms, cold pods' too, over synchronous windows: the observed traffic share.

    A window in which a pod came, went, restarted or fell silent is dropped: it would not show the router's split.
    """

    def __init__(self, lane: Lane, seconds: float) -> None:
        self.block = OpenBlock(lane, seconds)

    def frame(self, pod: str, step: Step) -> None:
        """Take in one scrape's increments."""
        if step.first or step.restarted or step.lost or pod not in self.block.members:
            self.block.members.pop(pod, None)
            return
        self.block.count(step.cursor.arm, step.n, step.bad, step.cursor.at)

    def settle(
        self, at: float, cursors: Mapping[str, Cursor], pods: Mapping[str, PodFact], barrier: float | None
    ) -> tuple[int, int]:
        """End of one instant: (canary, all) requests of a window that closes now, else (0, 0)."""
        living = {p: c.at for p, c in cursors.items() if p in pods and at - c.at <= SILENT}
        gained = (0, 0)
        if self.block.opened is not None:
            if not self.block.due(cursors, pods, at):
                return gained
            if self.block.members.keys() == living.keys():
                canary, stable = self.block.tallies["canary"].n, self.block.tallies["stable"].n
                gained = (canary, canary + stable)
        if barrier is None or all(t >= barrier for t in living.values()):
            self.block.open(at, living)
        else:
            self.block.drop()
        return gained


class Labels:
    """The block of labels: whatever pod they arrive at, they count for the revision that predicted.

    Nothing is ever dropped here but gaps above 6 h: the cohort already restricts labels to requests of the rollout.
    """

    def __init__(self, lane: Lane, seconds: float) -> None:
        self.block = OpenBlock(lane, seconds)

    def frame(self, pod: str, step: Step) -> None:
        """Take in one scrape's labels."""
        if self.block.opened is None:
            self.block.open(step.cursor.at, {})
        self.block.members.setdefault(pod, self.block.opened or step.cursor.at)
        right_s, wrong_s, right_c, wrong_c = step.labels
        at = step.cursor.at
        if right_c or wrong_c:
            self.block.count("canary", right_c + wrong_c, wrong_c, at)
        if right_s or wrong_s:
            self.block.count("stable", right_s + wrong_s, wrong_s, at)

    def settle(self, at: float, cursors: Mapping[str, Cursor], pods: Mapping[str, PodFact]) -> Lane | None:
        """End of one instant: the block that closes now, if one does."""
        if not self.block.filled() or not self.block.due(cursors, pods, at):
            return None
        closed = self.block.lane()
        self.block.open(at, {p: c.at for p, c in cursors.items()})
        return closed
