"""Evidence and plans as stored: exact, small, versioned."""

from __future__ import annotations

import json
import random

import pytest

from penstock.core.gates.evidence import Comparison, Plan, dump, dump_plan, load, load_plan, start, update
from tests.unit.gates.fleet import ACCURACY, ERRORS, START, Fleet, Rates, drive, plan


def busy(pods: int, scale: int, *gates: Comparison) -> tuple[Plan, Fleet]:
    """`pods` an arm with long names and counters of years, all gates at work."""
    fleet, rng, chosen = Fleet(), random.Random(3), plan(*gates)
    for arm, revision in (("s", "s1"), ("c", "c1")):
        for i in range(pods):
            pod = fleet.add(f"fraud-detection-{arm}{'x' * 9}-{i:05d}-abcde", revision)
            pod.serve(200, bad=4, seconds=[0.02 * rng.lognormvariate(0, 0.4) for _ in range(196)])
            pod.counts = {key: value * scale for key, value in pod.counts.items()}
            pod.scrape(START + rng.random())
    drive(fleet, rng, START + 60, {"s1": Rates(), "c1": Rates()}, {"s1": 10.0 * pods, "c1": 10.0 * pods}, 15.0)
    return chosen, fleet


def test_64_pods_an_arm_fit_in_64_kib() -> None:
    chosen, fleet = busy(64, 10_000_000)
    evidence = update(chosen, start(chosen), fleet.series(), fleet.facts(), START + 60)
    assert len(evidence.cursors) == 128
    assert all(g.blocks for g in evidence.gates)
    stored = json.dumps(dump(evidence), separators=(",", ":"))
    assert len(stored) <= 64 * 1024
    assert load(json.loads(stored)) == evidence


def test_as_many_latency_gates_as_the_api_allows_fit_too() -> None:
    latency = [Comparison(f"latency-{ratio}", "latency", ratio, tolerance=1.1) for ratio in (1.2, 1.5, 2.0, 3.0)]
    chosen, fleet = busy(64, 10_000_000, ACCURACY, ERRORS, *latency)
    evidence = update(chosen, start(chosen), fleet.series(), fleet.facts(), START + 60)
    assert all(g.blocks for g in evidence.gates)
    assert len(json.dumps(dump(evidence), separators=(",", ":"))) <= 64 * 1024


def test_an_empty_start_survives() -> None:
    assert load(json.loads(json.dumps(dump(start(plan()))))) == start(plan())


def test_a_start_that_still_looks_at_stables_latency_survives() -> None:
    fleet, chosen = Fleet(), plan()
    fleet.add("s-0", "s1").serve(10_000_000)
    fleet.scrape(START)
    evidence = update(chosen, start(chosen), fleet.series(), fleet.facts(), START)
    assert evidence.baseline is not None
    assert load(json.loads(json.dumps(dump(evidence)))) == evidence


def test_a_plan_survives() -> None:
    chosen = plan(latency_bounds=(0.05, 0.1), alpha=0.01)
    assert load_plan(json.loads(json.dumps(dump_plan(chosen)))) == chosen


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"pods": 3}, {"gates": [[1]]}, {"lanes": None}])
def test_evidence_that_cannot_be_read_is_refused(change: dict[str, object]) -> None:
    stored = {**dump(start(plan())), **change}
    if "lanes" in change:
        del stored["traffic"]
    with pytest.raises(ValueError, match=r"version|malformed"):
        load(stored)


@pytest.mark.parametrize("change", [{"version": 9}, {"comparisons": 3}, {"surprise": 1}])
def test_plans_that_cannot_be_read_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"version|malformed"):
        load_plan({**dump_plan(plan()), **change})
