"""Gates edited while a rollout runs: bounds chosen for one ratio must not be read with another that leaves the grid."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from penstock.core.gates.evidence import Comparison, Evidence, Plan, adopt, dump, judge, load, update, wanted_buckets
from penstock.core.gates.grid import GRID, INFINITE
from tests.unit.gates.fleet import ERRORS, LATENCY_GATE, START, plan
from tests.unit.gates.story import Story, exposed

WIDER = Comparison("wider", "latency", 3.0, tolerance=1.1)


class Slow:
    """A model that takes some 3 s: its p90 is 7 steps of the grid below the highest bound."""

    def __init__(self, chosen: Plan) -> None:
        self.told, self.rng = Story(chosen), random.Random(1)
        self.told.evidence = exposed(chosen)
        self.told.fleet.add("s-0", "s1")
        self.told.fleet.add("c-0", "c1")
        self.serve(3000, 300)
        self.told.fleet.scrape(START)
        self.told.look()

    def serve(self, stable: int, canary: int) -> None:
        for name, n in (("s-0", stable), ("c-0", canary)):
            self.told.fleet.pods[name].serve(n, seconds=[3.2 * self.rng.lognormvariate(0, 0.3) for _ in range(n)])

    def tick(self, times: int) -> Evidence:
        for _ in range(times):
            self.serve(60, 30)
            self.told.at += 15
            self.told.fleet.scrape(self.told.at)
            wanted_buckets(self.told.evidence)
            self.told.look()
        return self.told.evidence


@pytest.mark.parametrize("after", [(replace(LATENCY_GATE, margin=2.0),), (LATENCY_GATE, WIDER)])
def test_a_wider_ratio_gets_bounds_that_it_can_be_measured_at(after: tuple[Comparison, ...]) -> None:
    slow = Slow(plan(ERRORS, LATENCY_GATE))
    before = slow.tick(20)
    assert max(b.k for b in before.bounds) + max(c.pass_steps for c in after) >= INFINITE
    slow.told.plan = plan(ERRORS, *after)
    evidence = slow.tick(60)
    assert max(b.k for b in evidence.bounds) + max(c.pass_steps for c in after) < INFINITE
    assert all(k <= INFINITE for k in evidence.watch)
    errors, *latency = judge(slow.told.plan, evidence, slow.told.at)
    assert [j.verdict for j in latency] == ["Pass"] * len(after)
    assert latency[0].canary_n < errors.canary_n, "what was counted at the old bounds is gone, errors keep theirs"


def test_a_canary_much_slower_does_not_pass_at_the_end_of_the_grid() -> None:
    slow = Slow(plan(LATENCY_GATE))
    slow.tick(4)
    slow.told.plan = plan(replace(LATENCY_GATE, margin=2.0))
    for _ in range(40):
        n = 30
        slow.told.fleet.pods["c-0"].serve(n, seconds=[9.9] * n)
        slow.tick(1)
    assert judge(slow.told.plan, slow.told.evidence, slow.told.at)[0].verdict == "Fail"


def test_evidence_that_an_earlier_operator_left_off_the_grid_is_read_and_latency_starts_anew() -> None:
    slow = Slow(plan(LATENCY_GATE))
    broken = replace(slow.tick(8), watch=(0, 85, 89, 92, 93, 97, 101, 104, INFINITE))
    kept = load(dump(broken))
    wanted_buckets(kept)
    chosen = plan(replace(LATENCY_GATE, margin=3.0))
    evidence = adopt(chosen, kept)
    assert (evidence.bounds, evidence.gates[0].blocks, wanted_buckets(evidence)) == ((), 0, None)
    judge(chosen, evidence, slow.told.at)
    told = slow.told
    assert update(chosen, kept, told.fleet.series(), told.fleet.facts(), told.at).bounds == ()


def test_a_narrower_ratio_keeps_the_bounds() -> None:
    slow = Slow(plan(replace(LATENCY_GATE, margin=1.5)))
    before = slow.tick(4).bounds
    slow.told.plan = plan(LATENCY_GATE)
    assert slow.tick(4).bounds == before
    assert all(b.seconds in GRID for b in before)
