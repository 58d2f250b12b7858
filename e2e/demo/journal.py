"""What was seen, in order: every state of the ModelDeployment and every second of traffic."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from e2e.demo.settings import version_of
from penstock.api.analysis import RolloutAnalysis
from penstock.api.status import GateStatus, HistoryEntry, Phase, Rejection, Stage, Status


@dataclass(frozen=True)
class Sighting:
    """The ModelDeployment, and the analysis of its current or last rollout, as the cluster showed them at a time.

    `at` is Unix time in seconds of this machine.
    """

    at: float
    model: Mapping[str, Any]
    analysis: Mapping[str, Any] | None = None

    @cached_property
    def status(self) -> Status:
        """The status, typed."""
        return Status.from_wire(self.model.get("status"))

    @property
    def is_current(self) -> bool:
        """The operator has seen the spec as it is."""
        generation: int | None = self.model.get("metadata", {}).get("generation")
        return self.status.observed_generation == generation

    @property
    def phase(self) -> Phase | None:
        """Pending, Progressing, Paused, Healthy or Degraded."""
        return self.status.phase

    @property
    def stage(self) -> Stage | None:
        """Where within a rollout; None at rest."""
        return self.status.rollout.stage if self.status.rollout else None

    @property
    def weight(self) -> int:
        """Percent of the traffic that the route gives the canary."""
        return (self.status.traffic.applied_weight if self.status.traffic else 0) or 0

    @property
    def stable(self) -> str:
        """Name of the revision that serves; empty before the first."""
        return (self.status.stable.revision if self.status.stable else None) or ""

    @property
    def stable_uri(self) -> str:
        """Where its model came from."""
        return (self.status.stable.uri if self.status.stable else None) or ""

    @property
    def canary(self) -> str:
        """Name of the revision on trial; empty at rest."""
        return (self.status.canary.revision if self.status.canary else None) or ""

    @property
    def is_at_rest(self) -> bool:
        """No rollout is under way, and the operator knows of no newer spec."""
        return self.is_current and not self.canary and self.phase in (Phase.HEALTHY, Phase.DEGRADED)

    @property
    def last(self) -> HistoryEntry | None:
        """How the last rollout ended."""
        return self.status.history[0] if self.status.history else None

    def rejection_of(self, revision: str) -> Rejection | None:
        """The entry that refuses a revision, if there is one."""
        return next((r for r in self.status.rejected if r.revision == revision), None)

    @cached_property
    def evidence(self) -> RolloutAnalysis | None:
        """The analysis, typed."""
        return RolloutAnalysis.from_wire(self.analysis) if self.analysis else None

    @property
    def gates(self) -> tuple[GateStatus, ...]:
        """The gates of the running rollout, from its analysis, which is fresher than the status."""
        rollout = self.status.rollout
        if rollout is None:
            return ()
        evidence = self.evidence
        if evidence is not None and evidence.spec.rollout == rollout.id and evidence.status.gates:
            return evidence.status.gates
        return rollout.gates

    def differs_from(self, other: Sighting | None) -> bool:
        """Whether there is any news in it."""
        return other is None or self.model != other.model or self.analysis != other.analysis


@dataclass(frozen=True, slots=True)
class Mark:
    """The beginning of a chapter."""

    at: float
    title: str


@dataclass
class Journal:
    """Everything seen so far; written by the threads that watch, read by the story, the view and the plot."""

    sightings: list[Sighting] = field(default_factory=list)
    seconds: list[Mapping[str, Any]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    totals: Mapping[str, Any] = field(default_factory=dict)
    news: threading.Condition = field(default_factory=threading.Condition)
    on_second: Callable[[Mapping[str, Any]], None] | None = None
    """Told every line of the load generator, on its thread."""
    trouble: str = ""
    """Why nothing can be seen at the moment; empty while all is well."""

    def saw(self, sighting: Sighting) -> None:
        """Keep a sighting, if there is news in it."""
        with self.news:
            self.trouble = ""
            if sighting.differs_from(self.sightings[-1] if self.sightings else None):
                self.sightings.append(sighting)
                self.news.notify_all()

    def blind(self, why: str) -> None:
        """Note that the cluster cannot be seen."""
        with self.news:
            self.trouble = why

    def counted(self, line: Mapping[str, Any]) -> None:
        """Keep a line of the load generator: its totals and its last second."""
        with self.news:
            self.totals = line
            self.seconds.append(line["second"])
        if self.on_second is not None:
            self.on_second(line)

    def begin(self, at: float, title: str) -> None:
        """A chapter begins."""
        with self.news:
            self.marks.append(Mark(at, title))

    @property
    def latest(self) -> Sighting | None:
        """The last sighting."""
        with self.news:
            return self.sightings[-1] if self.sightings else None

    def since(self, at: float) -> tuple[Sighting, ...]:
        """The sightings from Unix time `at` on."""
        with self.news:
            return tuple(s for s in self.sightings if s.at >= at)

    def wait(self, holds: Callable[[Sighting], bool], timeout: float) -> Sighting | None:
        """The first latest sighting for which `holds`; None after `timeout` seconds."""
        with self.news:
            found = self.news.wait_for(lambda: bool(self.sightings) and holds(self.sightings[-1]), timeout)
            return self.sightings[-1] if found else None

    def version_names(self) -> dict[str, str]:
        """Revision name -> version of the demo, such as v2, for all revisions ever seen."""
        names: dict[str, str] = {}
        with self.news:
            for sighting in self.sightings:
                for arm in (sighting.status.stable, sighting.status.canary):
                    if arm is not None and arm.revision and version_of(arm.uri):
                        names[arm.revision] = version_of(arm.uri)
        return names


def answers(seconds: Sequence[Mapping[str, Any]], revision: str) -> tuple[int, int]:
    """(answered, wrong) of a revision over some seconds of traffic."""
    counts = [second["revisions"].get(revision) for second in seconds]
    found = [c for c in counts if c]
    return sum(c["ok"] for c in found), sum(c["wrong"] for c in found)
