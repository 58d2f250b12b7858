"""A fleet under a plan, told scrape by scrape: what most tests of blocks and faults begin with."""

from __future__ import annotations

from penstock.core.gates.evidence import Evidence, Plan, mark_weight, start, update
from penstock.core.gates.record import GateRecord
from tests.unit.gates.fleet import ERRORS, START, Fleet, plan


class Story:
    """A fleet under a plan, looked at after each scrape."""

    def __init__(self, chosen: Plan, scrape: float = 15.0) -> None:
        self.plan = chosen
        self.fleet = Fleet()
        self.evidence = start(chosen)
        self.at = START
        self.every = scrape
        self.seen = START - 3600.0

    def tick(self, times: int = 1, skip: tuple[str, ...] = (), **bad: int) -> Evidence:
        """One scrape interval: each pod serves 10 requests (`bad` of them, by pod with _ for -), then is scraped."""
        for _ in range(times):
            self.at += self.every
            for pod in self.fleet.pods.values():
                pod.serve(10, bad=bad.get(pod.name.replace("-", "_"), 0))
                if pod.name not in skip:
                    pod.scrape(self.at)
            self.look()
        return self.evidence

    def look(self) -> Evidence:
        series = self.fleet.series(self.seen, self.at)
        self.evidence = update(self.plan, self.evidence, series, self.fleet.facts(), self.at)
        return self.evidence

    def errors(self) -> GateRecord:
        return next(g for g in self.evidence.gates if g.name == "errors")


def exposed(chosen: Plan) -> Evidence:
    """No evidence yet of a canary that got weight just before the first scrape."""
    return mark_weight(start(chosen), 5, START - 1)


def story(stable: int = 2, canary: int = 1, **settings: object) -> Story:
    told = Story(plan(ERRORS, **{"block_seconds": 60.0, **settings}))
    told.evidence = exposed(told.plan)
    for i in range(stable):
        told.fleet.add(f"s-{i}", "s1").serve(1000, bad=2)
    for i in range(canary):
        told.fleet.add(f"c-{i}", "c1", START - 1, ready=1.0)
    told.fleet.scrape(START)
    told.look()
    return told


def counts(record: GateRecord) -> tuple[int, int, int, int]:
    return record.canary_n, record.canary_bad, record.stable_n, record.stable_bad
