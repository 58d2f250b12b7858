"""Open blocks: which pods' scrapes go in, and when a block closes.

A block closes at a scrape, once every pod in it has moved on by the block's length since it entered: all windows
are then equally long, and a missed scrape just makes the block longer. The rules look at trial counts and times,
never at outcomes: that is what the guarantees rest on. A gap of the source makes a longer block for all. A pod
silent for 150 s while others of its arm go on is no longer waited for; where it is its arm's only one, the block waits
for it, since stable alone teaches nothing.

Within a block of requests the odds of being counted for the canary are constant: where a pod goes on serving uncounted
(silent, restarted, lost), the block ends at what all its pods have told, or is discarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.core.gates.frames import Step
from penstock.core.gates.record import Arm, Cursor, Lane, Tally
from penstock.core.gates.samples import LULL, SILENT, PodFact

_ARMS: tuple[Arm, Arm] = ("canary", "stable")
_ROUND = 1.0
"""Seconds within which pods that are scraped in step are all scraped."""


@dataclass(frozen=True, slots=True)
class Instant:
    """The end of one sample time: what is known of all pods by then.

    resumed: by arm the first sample time after the last gap in which no pod of it was seen. barrier: no window of
    requests begins before it.
    """

    at: float
    cursors: Mapping[str, Cursor]
    pods: Mapping[str, PodFact]
    resumed: Mapping[Arm, float]
    barrier: float | None = None

    def silent(self, pod: str) -> bool:
        """Whether the pod had no sample for long while others of its arm had; all are given time after a gap."""
        cursor = self.cursors[pod]
        return self.at - max(cursor.at, self.resumed.get(cursor.arm, cursor.at)) > SILENT

    def arms(self, pods: Iterable[str]) -> set[Arm]:
        """The arms these pods belong to."""
        return {self.cursors[p].arm for p in pods}


class OpenBlock:
    """A lane being worked on; `lane()` gives it back as data. patient: living members are waited for without end."""

    def __init__(self, lane: Lane, seconds: float, *, patient: bool = False) -> None:
        self.seconds = seconds
        self.patient = patient
        self.opened = lane.opened
        self.armed = lane.armed
        self.members = dict(lane.members)
        self.tallies: dict[Arm, Tally] = {"canary": lane.canary, "stable": lane.stable}

    def lane(self) -> Lane:
        """The lane as immutable data."""
        return Lane(self.opened, self.members, self.tallies["canary"], self.tallies["stable"], self.armed)

    def count(self, arm: Arm, n: int, bad: int, at: float, buckets: tuple[int, ...] | None = None) -> None:
        """Add increments to an arm's counts."""
        t = self.tallies[arm]
        rise = t.buckets
        if buckets is not None:
            rise = tuple(a + b for a, b in zip(rise, buckets, strict=True)) if rise else buckets
        self.tallies[arm] = Tally(t.n + n, t.bad + bad, rise, max(t.until, at))

    def due(self, now: Instant) -> bool:
        """Whether every living member that is not given up has moved on by the block's length."""
        if self.opened is None:
            return False
        least = self.seconds - min(1.0, 0.1 * self.seconds)
        return now.at - self.opened >= least and all(
            now.cursors[pod].at - entered >= least
            for pod, entered in self.members.items()
            if pod in now.pods and (self.patient or not now.silent(pod))
        )

    def filled(self) -> bool:
        """Whether both arms have trials."""
        return self.tallies["canary"].n >= 1 and self.tallies["stable"].n >= 1

    def open(self, at: float, members: Mapping[str, float]) -> None:
        """Begin a new block with nothing counted."""
        self.opened, self.armed = at, None
        self.members = dict(members)
        self.tallies = {"canary": Tally(until=at), "stable": Tally(until=at)}

    def drop(self) -> None:
        """Discard the open block."""
        self.opened = self.armed = None
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
        self.block = OpenBlock(lane, seconds, patient=True)
        self.births: dict[str, Step] = {}

    def interrupt(self, steps: Mapping[str, Step], cursors: Mapping[str, Cursor], born_warm: bool) -> Lane | None:
        """Before one instant's scrapes are taken in: members that restarted or have a gap above 6 h end the block.

        What a restarted member served before belongs to a block in which it was counted, what it serves now, being
        cold, to one in which it is not. The first is given back if all its pods were last seen at one time: the trouble
        that made a pod restart shows at others, and would show at one side for a scrape longer. cursors: as they were
        before these scrapes.
        """
        mine = [step for pod, step in steps.items() if pod in self.block.members]
        if any(step.lost for step in mine):
            self.block.drop()
        elif any(step.restarted for step in mine) and not born_warm:
            return self.cut(cursors, _ROUND)
        return None

    def frame(self, pod: str, step: Step, born_warm: bool) -> None:
        """Take in one scrape's increments."""
        fresh = (step.newborn or step.restarted) and born_warm
        if fresh and self.block.opened is None:
            self.births[pod] = step
        elif fresh or pod in self.block.members:
            self.block.members.setdefault(pod, self.block.opened or step.cursor.at)
            self._add(step)

    def settle(self, now: Instant) -> Lane | None:
        """End of one instant: the block that closes now, if one does.

        Living members have all moved on by the block's length, however far apart they are scraped; a deleted one may
        have stopped long ago.
        """
        closed = None
        if self.block.opened is not None:
            self._drop_unheard(now)
            ripe, paired = self.block.filled() and self.block.due(now), len(now.arms(self.block.members)) == len(_ARMS)
            if ripe and paired and self.block.members.keys() <= now.pods.keys():
                closed = self.block.lane()
                self.block.drop()
                self._try_open(now, goes_on=True)
            elif ripe or (self.block.opened is not None and not paired):
                closed = self.cut(now.cursors)
        if self.block.opened is None:
            self._try_open(now)
        self.births = {}
        return closed

    def cut(self, cursors: Mapping[str, Cursor], apart: float | None = None) -> Lane | None:
        """End the block early: given back if both arms have trials of the same stretch of time, else discarded.

        apart: seconds that its pods' last scrapes may lie apart; a block's length where not given.
        """
        allowed = self.block.seconds if apart is None else apart
        lane = self.block.lane()
        lasts = [lane.canary.until, lane.stable.until, *(cursors[p].at for p in self.block.members)]
        usable = self.block.filled() and max(lasts) - min(lasts) <= allowed
        self.block.drop()
        return lane if usable else None

    def forget_deleted(self, cursors: Mapping[str, Cursor], pods: Mapping[str, PodFact]) -> Lane | None:
        """Let go of deleted pods once their last scrapes are in; a block left with one arm is cut.

        One that had not been heard of for long may have gone on serving: its block is discarded.
        """
        gone = [p for p in self.block.members if p not in pods]
        if self.block.opened is None or not gone:
            return None
        last = max(cursors[p].at for p in self.block.members)
        if any(last - cursors[p].at > max(self.block.seconds, LULL) for p in gone):
            self.block.drop()
            return None
        left = {p: t for p, t in self.block.members.items() if p in pods}
        if {cursors[p].arm for p in left} != set(_ARMS):
            return self.cut(cursors)
        self.block.members = left
        return None

    def _add(self, step: Step) -> None:
        self.block.count(step.cursor.arm, step.n, step.bad, step.cursor.at, step.buckets)

    def _drop_unheard(self, now: Instant) -> None:
        """Discard the block where a member fell silent and its arm has others: its requests since are not told."""
        for arm in _ARMS:
            silent = {now.silent(p) for p in self.block.members if now.cursors[p].arm == arm}
            if silent == {True, False}:
                self.block.drop()

    def _try_open(self, now: Instant, *, goes_on: bool = False) -> None:
        """Begin a block if both arms have warm pods. goes_on: each pod's window where its last one ended.

        Otherwise once all have been scraped since it could begin: where pods are scraped in step, a block that began
        within a round would hold one scrape interval more of those that were seen before it.
        """
        ready = {p: c.at for p, c in now.cursors.items() if c.warm and p in now.pods and now.at - c.at <= LULL}
        if now.arms(ready) != set(_ARMS):
            return
        if now.barrier is not None and any(t < now.barrier for t in ready.values()):
            return
        if not goes_on:
            if self.block.armed is None:
                self.block.armed = now.at - _ROUND
            if any(t < self.block.armed for t in ready.values()):
                return
        self.block.open(now.at, ready)
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

    def settle(self, now: Instant) -> tuple[int, int]:
        """End of one instant: (canary, all) requests of a window that closes now, else (0, 0)."""
        living = {p: c.at for p, c in now.cursors.items() if p in now.pods and now.at - c.at <= SILENT}
        gained = (0, 0)
        if self.block.opened is not None:
            if not self.block.due(now):
                return gained
            if self.block.members.keys() == living.keys():
                canary, stable = self.block.tallies["canary"].n, self.block.tallies["stable"].n
                gained = (canary, canary + stable)
        if now.barrier is None or all(t >= now.barrier for t in living.values()):
            self.block.open(now.at, living)
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

    def settle(self, now: Instant) -> Lane | None:
        """End of one instant: the block that closes now, if one does."""
        if not self.block.filled() or not self.block.due(now):
            return None
        closed = self.block.lane()
        self.block.open(now.at, {p: c.at for p, c in now.cursors.items()})
        return closed
