"""New scrapes into evidence, instant by instant. The result depends on the samples, not on how they were batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import groupby
from math import inf, nextafter

from penstock.core.gates.frames import Frame, Step, advance, histogram, read
from penstock.core.gates.grid import HISTORY_NEEDED, RECENT_WANTED, choose_bounds, fixed_bounds, on_grid, watched, whole
from penstock.core.gates.lanes import Instant, Labels, Requests, Traffic
from penstock.core.gates.plan import Plan
from penstock.core.gates.record import Arm, Baseline, Cursor, Evidence, GateRecord, Lane
from penstock.core.gates.samples import LULL, PodFact, Series
from penstock.core.gates.scoring import score_labels, score_requests
from penstock.core.gates.watching import faults

PODS_AN_ARM = 64
_FORGOTTEN = 600.0
_FRESH = 45.0
"""Seconds by which persisted evidence may lag: from a source without history, more would look like a gap (LULL)."""


def begin(plan: Plan) -> Evidence:
    """No evidence yet."""
    bounds = fixed_bounds(plan)
    return Evidence(
        gates=tuple(GateRecord(c.name, c.key) for c in plan.comparisons),
        bounds=bounds,
        watch=watched(plan, bounds),
        bounds_settled=bool(bounds),
    )


def adopt(plan: Plan, evidence: Evidence) -> Evidence:
    """Evidence fitted to a plan whose comparisons were edited: gates of the same statistics keep theirs.

    Bounds chosen for a narrower ratio may lie so high that a wider one leaves the grid: then all latency gates start
    anew, with bounds chosen for it.
    """
    fits = on_grid(plan, evidence.bounds, evidence.watch)
    if fits and [(g.name, g.key) for g in evidence.gates] == [(c.name, c.key) for c in plan.comparisons]:
        return evidence
    known = {(g.name, g.key): g for g in evidence.gates if fits or not g.key.startswith("latency/")}
    gates = tuple(known.get((c.name, c.key), GateRecord(c.name, c.key)) for c in plan.comparisons)
    evidence = replace(evidence, gates=gates)
    if not fits:
        bounds = fixed_bounds(plan)
        evidence = replace(evidence, bounds=bounds, bounds_settled=bool(bounds))
    needed = watched(plan, evidence.bounds)
    if fits and set(needed) <= set(evidence.watch):
        return evidence
    cursors = {p: replace(c, buckets=None) for p, c in evidence.cursors.items()}
    barrier = None if evidence.newest is None else nextafter(evidence.newest, inf)
    return replace(evidence, watch=needed, cursors=cursors, traffic=Lane(), barrier=barrier)


def fold(
    plan: Plan,
    evidence: Evidence,
    series: Sequence[Series],
    pods: Mapping[str, PodFact],
    now: float,
) -> Evidence:
    """Evidence after the given samples; see `evidence.update`."""
    evidence = adopt(plan, evidence)
    reading = read(plan, series, evidence.cursors, pods, evidence.watch)
    work = _Fold(plan, evidence, pods)
    work.admit(reading.frames)
    for at, frames in groupby(reading.frames, key=lambda f: f.at):
        work.instant(at, tuple(frames))
    after = work.finish()
    after = replace(
        after,
        blind_since=None,
        blind_reason="",
        shown=tuple(sorted(reading.shown.union(evidence.shown))),
        milestones=evidence.milestones,
    )
    after = replace(after, faults=faults(plan, after, reading, pods, now))
    lag = (after.newest or 0.0) - (evidence.newest or 0.0)
    if work.restarts or lag > _FRESH or _landmarks(after) != _landmarks(evidence):
        after = replace(after, milestones=after.milestones + 1)
    return after


def _landmarks(evidence: Evidence) -> tuple[object, ...]:
    return (
        evidence.blocks,
        {pod: c.warm for pod, c in evidence.cursors.items()},
        evidence.watch,
        evidence.traffic.opened,
        evidence.traffic.members.keys(),
        evidence.cut_at,
        evidence.gap,
        evidence.blind_since,
        evidence.shown,
        [(f.signal, f.reason) for f in evidence.faults],
    )


class _Fold:
    """One pass over new scrapes: mutable inside, evidence in and evidence out."""

    def __init__(self, plan: Plan, evidence: Evidence, pods: Mapping[str, PodFact]) -> None:
        self.plan = plan
        self.evidence = evidence
        self.pods = pods
        self.cursors: dict[str, Cursor] = dict(evidence.cursors)
        self.traffic = Traffic(evidence.traffic, plan.block_seconds)
        self.requests = Requests(evidence.requests, plan.feedback_block_seconds)
        self.labels = Labels(evidence.labels, plan.feedback_block_seconds)
        self.refused: set[str] = set()
        self.partial = False
        self.restarts = 0

    def admit(self, frames: Sequence[Frame]) -> None:
        """Beyond 64 living pods an arm read a subset, chosen by hash and then kept.

        Deleted ones, whose last scrapes are still to be read, take no place of the living.
        """
        for arm, revision in (("stable", self.plan.stable), ("canary", self.plan.canary)):
            fresh = {f.pod for f in frames if f.arm == arm and f.pod not in self.cursors}
            for alive in (True, False):
                known = sum(c.arm == arm and (p in self.pods) == alive for p, c in self.cursors.items())
                mine = (pod for pod in fresh if (pod in self.pods) == alive)
                ranked = sorted(mine, key=lambda pod: sha256(pod.encode()).digest())
                self.refused.update(ranked[max(0, PODS_AN_ARM - known) :])
            if sum(fact.revision == revision for fact in self.pods.values()) > PODS_AN_ARM:
                self.partial = True
        if self.evidence.partial and not self.partial:
            self.evidence = replace(self.evidence, share=(0, 0))  # of a subset
        self.evidence = replace(self.evidence, partial=self.partial)

    def instant(self, at: float, frames: Sequence[Frame]) -> None:
        """Take in all scrapes of one sample time, then see which blocks close.

        At a time that others are past already (a pod's samples came late) none does: it would hold more of theirs.
        """
        cut_at = self.evidence.cut_at
        if cut_at is not None and at > cut_at:
            self._score_requests(self.traffic.cut(self.cursors))
            self.requests.block.drop()
            self.evidence = replace(self.evidence, cut_at=None, barrier=cut_at, blocks_at_weight=0, share=(0, 0))
        read = [frame for frame in frames if frame.pod not in self.refused]
        self._note_gaps(at, {frame.arm for frame in read})
        self._take(read)
        if self.evidence.newest is not None and at < self.evidence.newest:
            return
        now = Instant(at, self.cursors, self.pods, self.evidence.resumed, self.evidence.barrier)
        self._score_requests(self.traffic.settle(now))
        canary, total = self.requests.settle(now)
        share = (self.evidence.share[0] + canary, self.evidence.share[1] + total)
        self.evidence = replace(self.evidence, share=share, newest=at)
        closed = self.labels.settle(now)
        if closed:
            self.evidence = score_labels(self.plan, self.evidence, closed)

    def finish(self) -> Evidence:
        """The evidence, rid of pods that are gone."""
        self._score_requests(self.traffic.forget_deleted(self.cursors, self.pods))
        newest = self.evidence.newest or 0.0
        for pod, cursor in list(self.cursors.items()):
            if pod not in self.pods and newest - cursor.at > _FORGOTTEN:
                del self.cursors[pod]
                for lane in (self.traffic, self.requests, self.labels):
                    lane.block.members.pop(pod, None)
        return replace(
            self.evidence,
            cursors=self.cursors,
            traffic=self.traffic.block.lane(),
            requests=self.requests.block.lane(),
            labels=self.labels.block.lane(),
        )

    def _note_gaps(self, at: float, arms: set[Arm]) -> None:
        for arm in arms:
            last = max((c.at for c in self.cursors.values() if c.arm == arm), default=at)
            if at - last > LULL:
                self.evidence = replace(self.evidence, resumed={**self.evidence.resumed, arm: at})

    def _take(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if not self.evidence.bounds and frame.arm == "stable" and self.plan.latency:
                self._choose_bounds(frame)
        watch, exposed = self.evidence.watch, self.evidence.exposed_at
        steps = {
            f.pod: advance(self.plan, self.cursors.get(f.pod), f, self.pods.get(f.pod), watch, exposed) for f in frames
        }
        self._score_requests(self.traffic.interrupt(steps, self.cursors, self.plan.born_warm))
        for frame in frames:
            self._count(frame, steps[frame.pod])

    def _count(self, frame: Frame, step: Step) -> None:
        self.cursors[frame.pod] = step.cursor
        self.restarts += step.restarted
        if step.lost:
            self.evidence = replace(self.evidence, gap=step.lost)
        if step.first:
            self._learn_history(frame, step)
        self.traffic.frame(frame.pod, step, self.plan.born_warm)
        self.requests.frame(frame.pod, step)
        self.labels.frame(frame.pod, step)

    def _choose_bounds(self, frame: Frame) -> None:
        """From one stable pod's latency of late: its whole life would tell of its start and of other times of day."""
        counts, base = whole(histogram(frame)), self.evidence.baseline
        if not counts or (base is not None and base.pod != frame.pod and base.pod in self.pods):
            return
        if base is None or base.pod != frame.pod or any(a < b for a, b in zip(counts, base.counts, strict=True)):
            self.evidence = replace(self.evidence, baseline=Baseline(frame.pod, frame.at, counts))
            return
        recent = tuple(a - b for a, b in zip(counts, base.counts, strict=True))
        if recent[-1] < RECENT_WANTED and frame.at - base.at < self.plan.block_seconds:
            return
        bounds = choose_bounds(self.plan, dict(enumerate(recent if recent[-1] >= HISTORY_NEEDED else counts)))
        if not bounds:
            return
        self._score_requests(self.traffic.cut(self.cursors))
        self.evidence = replace(
            self.evidence,
            bounds=bounds,
            watch=watched(self.plan, bounds),
            barrier=nextafter(frame.at, inf),
            baseline=None,
        )

    def _learn_history(self, frame: Frame, step: Step) -> None:
        """Stable's totals before the rollout, as far as its pods remember them, sharpen PASS."""
        if frame.arm == "stable" and not step.newborn:
            n = sum(frame.outcomes.values())
            bad, all_n = self.evidence.error_history
            history = (bad + n - frame.outcomes.get("ok", 0), all_n + n)
            self.evidence = replace(self.evidence, error_history=history)
        right, wrong = frame.earlier
        bad, all_n = self.evidence.label_history
        self.evidence = replace(self.evidence, label_history=(bad + wrong, all_n + right + wrong))

    def _score_requests(self, closed: Lane | None) -> None:
        if closed:
            self.evidence = score_requests(self.plan, self.evidence, closed)
