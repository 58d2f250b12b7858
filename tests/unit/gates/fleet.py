"""A simulated fleet of model pods: requests and labels in, raw counter samples out, as a source would return them."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from penstock.core.gates.evidence import FEEDBACK, LATENCY, REQUESTS, Comparison, Plan, PodFact, Series
from penstock.core.gates.grid import GRID

BOUNDS = (*GRID, inf)
OUTCOMES = ("ok", "client_error", "server_error", "rejected", "timeout")
START = 1_000_000.0
ACCURACY = Comparison("accuracy", "accuracy", 0.02)
ERRORS = Comparison("errors", "errors", 0.005)
LATENCY_GATE = Comparison("latency", "latency", 1.2, tolerance=1.1)


def plan(*comparisons: Comparison, **changes: object) -> Plan:
    """A plan of short blocks, no soak and no cold start unless asked for."""
    settings: dict[str, object] = {
        "started_at": START,
        "soak_seconds": 0.0,
        "cold_start_requests": 0,
        "cold_start_seconds": 0.0,
        "block_seconds": 15.0,
    }
    settings.update(changes)
    chosen = comparisons or (ACCURACY, ERRORS, LATENCY_GATE)
    return Plan("s1", "c1", "run", chosen, **settings)  # type: ignore[arg-type]


@dataclass
class Pod:
    """Counters of one pod, and the samples taken of them."""

    name: str
    revision: str
    created_at: float
    ready_since: float | None
    counts: dict[tuple[str, str, tuple[tuple[str, str], ...]], int] = field(default_factory=dict)
    points: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Counters begin anew."""
        self.counts = {(REQUESTS, self.revision, (("outcome", o),)): 0 for o in OUTCOMES}
        self.buckets = [(LATENCY, self.revision, (("le", le),)) for le in (*map(repr, GRID), "+Inf")]
        self.counts.update(dict.fromkeys(self.buckets, 0))
        for result in ("correct", "incorrect"):
            self.counts[FEEDBACK, self.revision, (("cohort", "none"), ("result", result))] = 0

    def serve(self, n: int, *, bad: int = 0, outcome: str = "server_error", seconds: Iterable[float] = ()) -> None:
        """Count n requests of which `bad` end in `outcome`; the ok ones took `seconds` (0.002 s where not given)."""
        self.counts[REQUESTS, self.revision, (("outcome", "ok"),)] += n - bad
        self.counts[REQUESTS, self.revision, (("outcome", outcome),)] += bad
        took = list(seconds)
        took = sorted(took + [0.002] * (n - bad - len(took)))
        for bound, key in zip(BOUNDS, self.buckets, strict=True):
            self.counts[key] += bisect_right(took, bound)

    def label(self, revision: str, right: int, wrong: int, cohort: str = "run") -> None:
        """Count labels that arrived at this pod for answers of a revision."""
        for result, n in (("correct", right), ("incorrect", wrong)):
            key = (FEEDBACK, revision, (("cohort", cohort), ("result", result)))
            self.counts[key] = self.counts.get(key, 0) + n

    def scrape(self, at: float) -> None:
        """Sample every counter."""
        for key, value in self.counts.items():
            self.points.setdefault(key, []).append((at, float(value)))


class Fleet:
    """Pods by name, with their facts and series."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}

    def add(self, name: str, revision: str, created_at: float = START - 3600, ready: float | None = 30.0) -> Pod:
        """Start a pod, Ready `ready` seconds after its creation (None: not Ready)."""
        since = None if ready is None else created_at + ready
        self.pods[name] = Pod(name, revision, created_at, since)
        return self.pods[name]

    def facts(self) -> Mapping[str, PodFact]:
        """The living pods."""
        return {p.name: PodFact(p.revision, p.created_at, p.ready_since) for p in self.pods.values()}

    def scrape(self, at: float) -> None:
        """Sample every pod at one time."""
        for pod in self.pods.values():
            pod.scrape(at)

    def series(self, since: float = 0.0, until: float = float("inf")) -> list[Series]:
        """All series with the samples in (since, until]."""
        found = []
        for pod in self.pods.values():
            for (name, revision, labels), points in pod.points.items():
                window = tuple(p for p in points if since < p[0] <= until)
                if window:
                    found.append(Series(pod.name, revision, name, labels, window))
        return found


@dataclass(frozen=True)
class Rates:
    """What a revision does: share of failed requests, share of wrong labels, median latency."""

    errors: float = 0.002
    wrong: float = 0.05
    seconds: float = 0.02


def drive(
    fleet: Fleet, rng: random.Random, until: float, rates: Mapping[str, Rates], pace: Mapping[str, float], scrape: float
) -> None:
    """Random traffic (pace: requests/s of each revision) and labels for every request, scraped regularly."""
    at = START
    while at < until:
        at += scrape
        for pod in fleet.pods.values():
            if pod.created_at > at:
                continue
            mine = [p for p in fleet.pods.values() if p.revision == pod.revision and p.created_at <= at]
            n = round(pace[pod.revision] * scrape / len(mine))
            r = rates[pod.revision]
            bad = sum(rng.random() < r.errors for _ in range(n))
            pod.serve(n, bad=bad, seconds=[r.seconds * rng.lognormvariate(0, 0.4) for _ in range(n - bad)])
            wrong = sum(rng.random() < r.wrong for _ in range(n))
            rng.choice(list(fleet.pods.values())).label(pod.revision, n - wrong, wrong)
            pod.scrape(at)
