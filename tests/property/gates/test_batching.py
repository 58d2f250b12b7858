"""The same samples give the same evidence in whatever batches they come (bar B12), stored in between or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.gates.evidence import Evidence, Plan, dump, load, mark_weight, oldest_cursor, start, update
from tests.unit.gates.fleet import START, Fleet, plan

SECONDS = 600
NOW = START + SECONDS


@dataclass(frozen=True)
class Tale:
    """A fleet that has lived through restarts, missed scrapes, late pods and skewed scrape times, and where its seed
    is odd an outage of the source."""

    fleet: Fleet
    plan: Plan
    weight_at: float


@cache
def tale(seed: int) -> Tale:
    rng, fleet = Random(seed), Fleet()
    for i in range(2):
        fleet.add(f"s-{i}", "s1").serve(800, bad=3, seconds=[0.02 * rng.lognormvariate(0, 0.4) for _ in range(797)])
    fleet.add("c-0", "c1", START + 2, ready=5.0)
    fleet.add("c-1", "c1", START + rng.randint(150, 300), ready=5.0)
    offset = {name: rng.choice((0.0, rng.uniform(0, 15))) for name in fleet.pods}
    for i in range(SECONDS // 15):
        for pod in fleet.pods.values():
            at = START + 15 * i + offset[pod.name]
            if at < pod.created_at:
                continue
            if rng.random() < 0.02:
                pod.restart()
            n = rng.randint(0, 30)
            bad = rng.randint(0, n // 10)
            pod.serve(n, bad=bad, seconds=[0.02 * rng.lognormvariate(0, 0.4) for _ in range(n - bad)])
            pod.label(rng.choice(("s1", "c1")), rng.randint(0, 20), rng.randint(0, 2))
            away = seed % 2 and 300 <= 15 * i < 480
            if rng.random() > 0.1 and not away:
                pod.scrape(at)
    chosen = plan(block_seconds=rng.choice((15.0, 60.0)), cold_start_requests=40, cold_start_seconds=20.0)
    return Tale(fleet, chosen, START + rng.randint(200, 400))


def essence(evidence: Evidence) -> Evidence:
    """What must not depend on batching: all but the count of milestones and what is dated by the wall clock."""
    return replace(evidence, milestones=0, faults=())


def follow(told: Tale, looks: list[float], *, stored: bool, lazy: bool) -> Evidence:
    """Look at those times and at the end; `lazy`: forget what was not worth persisting. The weight changes once."""
    evidence = kept = mark_weight(start(told.plan), 10, START)
    for at in sorted({*looks, told.weight_at, NOW}):
        since = oldest_cursor(evidence)
        series = told.fleet.series(START - 600 if since is None else since - 20, at)
        evidence = update(told.plan, evidence, series, told.fleet.facts(), at)
        if at == told.weight_at:
            evidence = mark_weight(evidence, 50, at)
        if lazy and at != NOW:
            kept = evidence if evidence.milestones != kept.milestones else kept
            evidence = kept
        if stored:
            evidence = load(dump(evidence))
    return evidence


@settings(max_examples=60)
@given(
    seed=st.integers(0, 5),
    looks=st.lists(st.floats(START, NOW, allow_nan=False), max_size=40),
    stored=st.booleans(),
    lazy=st.booleans(),
)
def test_batches_do_not_matter(seed: int, looks: list[float], stored: bool, lazy: bool) -> None:
    told = tale(seed)
    once = follow(told, [], stored=False, lazy=False)
    assert any(g.blocks for g in once.gates)
    assert essence(follow(told, looks, stored=stored, lazy=lazy)) == essence(once)


@settings(max_examples=20)
@given(seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_order_of_series_does_not_matter(seed: int, order: Random) -> None:
    told = tale(seed)
    series = told.fleet.series()
    first = update(told.plan, start(told.plan), series, told.fleet.facts(), NOW)
    order.shuffle(series)
    assert update(told.plan, start(told.plan), series, told.fleet.facts(), NOW) == first
