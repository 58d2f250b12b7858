"""Verdicts, reasons and messages, from evidence of simulated fleets."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from math import exp, log

import pytest

from penstock.core.gates import TwoSample, Verdict
from penstock.core.gates.evidence import (
    FEEDBACK,
    LATENCY,
    REQUESTS,
    Comparison,
    Evidence,
    GateJudgement,
    Plan,
    Reason,
    blind,
    judge,
    mark_weight,
    overall,
    start,
    update,
)
from penstock.core.gates.record import Failure, GateRecord
from penstock.core.gates.scoring import weighted_log_sum
from tests.unit.gates.fleet import ACCURACY, ERRORS, LATENCY_GATE, START, Fleet, Rates, drive, plan

SECONDS = 240.0
NOW = START + SECONDS


@cache
def fleet_of(canary: Rates, seed: int = 1, labels: bool = True) -> Fleet:
    """Three stable pods with a history, one canary pod with a tenth of the traffic."""
    fleet, rng = Fleet(), random.Random(seed)
    for i in range(3):
        pod = fleet.add(f"s-{i}", "s1")
        pod.serve(2000, bad=4, seconds=[0.02 * rng.lognormvariate(0, 0.4) for _ in range(1996)])
        pod.label("s1", 950, 50, cohort="none")
        pod.scrape(START - 5)
    fleet.add("c-0", "c1", START - 60)
    drive(fleet, rng, NOW, {"s1": Rates(), "c1": canary}, {"s1": 90.0, "c1": 10.0}, 5.0)
    if not labels:
        for pod in fleet.pods.values():
            pod.points = {k: v for k, v in pod.points.items() if dict(k[2]).get("cohort") != "run"}
    return fleet


def measured(chosen: Plan, fleet: Fleet, now: float = NOW) -> Evidence:
    evidence = mark_weight(start(chosen), 10, START - 60)
    return update(chosen, evidence, fleet.series(until=now), fleet.facts(), now)


def judged(canary: Rates, *comparisons: Comparison, **settings: object) -> tuple[Plan, Evidence, list[GateJudgement]]:
    chosen = plan(*comparisons, **settings)
    evidence = measured(chosen, fleet_of(canary))
    return chosen, evidence, list(judge(chosen, evidence, NOW))


def test_a_good_canary_passes_every_gate() -> None:
    chosen, evidence, found = judged(Rates())
    assert [j.verdict for j in found] == [Verdict.PASS] * 3
    assert [j.reason for j in found] == [Reason.NOT_WORSE] * 3
    assert overall(chosen, evidence, tuple(found), NOW).verdict is Verdict.PASS
    accuracy, errors, latency = (j.message for j in found)
    assert "a drop of 2.00 points or more is ruled out (risk 5.0 %)" in accuracy
    assert "a rise of 0.50 points or more is ruled out" in errors
    assert "1.21 (maxRatio 1.2 in steps of 1.1) times slower or more is ruled out" in latency


@pytest.mark.parametrize(
    ("canary", "gate", "says"),
    [
        (Rates(wrong=0.4), "accuracy", "labels): worse"),
        (Rates(errors=0.08), "errors", "requests): worse"),
        (Rates(seconds=0.03), "latency", "of canary's requests take over"),
    ],
)
def test_a_bad_canary_fails_the_gate_that_sees_it(canary: Rates, gate: str, says: str) -> None:
    chosen, evidence, found = judged(canary)
    outcome = overall(chosen, evidence, tuple(found))
    assert (outcome.verdict, outcome.gate, outcome.reason) == (Verdict.FAIL, gate, Reason.CANARY_WORSE)
    assert says in outcome.message
    assert "chance alone does this in fewer than 1 of" in outcome.message
    assert [j.name for j in found if j.verdict is Verdict.FAIL] == [gate]


def test_a_message_tells_rates_and_counts() -> None:
    _, _, found = judged(Rates(wrong=0.4))
    accuracy = found[0]
    right = 100 * (1 - accuracy.canary_bad / accuracy.canary_n)
    assert f"canary {right:.1f} % right, stable 95" in accuracy.message
    assert f"({accuracy.canary_n:,} and {accuracy.stable_n:,} labels)" in accuracy.message


def record_with(name: str, log_e: float, trials: int = 100) -> GateRecord:
    state = replace(TwoSample(0.02).start(5, 100), fail=(log_e,) * 7)
    return GateRecord(name, "", state, canary_n=trials, stable_n=trials)


def test_evidence_of_several_gates_adds_up_weighted_by_their_share_of_alpha() -> None:
    chosen = plan(ACCURACY, ERRORS)
    records = (record_with("accuracy", log(24)), record_with("errors", log(30)))
    evidence = replace(start(chosen), gates=records)
    total, largest = weighted_log_sum(chosen, evidence)
    assert exp(total) == pytest.approx(24 * 4 / 7 + 30 * 3 / 7)
    assert largest == "accuracy"
    assert max(24 * 4 / 7, 30 * 3 / 7) < 1 / chosen.alpha < exp(total)
    few = replace(evidence, gates=(records[0], record_with("errors", log(30), trials=19)))
    assert exp(weighted_log_sum(chosen, few)[0]) == pytest.approx(24 * 4 / 7)


def test_fail_waits_for_twenty_trials_of_the_canary() -> None:
    fleet, chosen = Fleet(), plan(ERRORS)
    for name, revision in (("s-0", "s1"), ("c-0", "c1")):
        fleet.add(name, revision)
    evidence, at = mark_weight(start(chosen), 10, START - 60), START
    for trials in (0, 10, 9, 1):
        fleet.pods["s-0"].serve(400)
        fleet.pods["c-0"].serve(trials, bad=trials)
        fleet.scrape(at)
        evidence = update(chosen, evidence, fleet.series(at - 20, at), fleet.facts(), at)
        served = evidence.gates[0].canary_n
        assert (evidence.failure is not None) is (served >= 20)
        at += 15
    assert judge(chosen, evidence, at)[0].verdict is Verdict.FAIL


def test_pass_waits_for_the_soak() -> None:
    chosen, evidence, found = judged(Rates(), soak_seconds=600.0)
    assert {j.reason for j in found} == {Reason.SOAK_NOT_OVER}
    assert "soaking for another 5 min" in found[0].message
    assert overall(chosen, evidence, tuple(found)).verdict is Verdict.INSUFFICIENT_DATA
    later = judge(chosen, replace(evidence), START - 60 + 600)
    assert {j.verdict for j in later} == {Verdict.PASS}


def test_pass_waits_for_a_block_at_the_new_weight() -> None:
    chosen, evidence, _ = judged(Rates())
    found = {j.name: j for j in judge(chosen, mark_weight(evidence, 25, NOW), NOW)}
    assert found["accuracy"].verdict is Verdict.PASS
    assert found["errors"].reason is found["latency"].reason is Reason.STEP_NOT_MEASURED


def test_a_blind_rollout_cannot_pass_and_says_since_when() -> None:
    chosen, evidence, _ = judged(Rates())
    dark = blind(blind(evidence, NOW, "connection refused"), NOW + 50, "no route to host")
    found = judge(chosen, dark, NOW + 120)
    assert {j.verdict for j in found} == {Verdict.CANNOT_MEASURE}
    assert found[0].reason is Reason.SOURCE_DOWN
    assert found[0].since == NOW
    assert "cannot be measured: no route to host" in found[0].message
    assert judge(chosen, dark, NOW + 300)[0].message == found[0].message
    assert overall(chosen, dark, found).verdict is Verdict.CANNOT_MEASURE
    back = update(chosen, dark, [], fleet_of(Rates()).facts(), NOW + 125)
    assert {j.verdict for j in judge(chosen, back, NOW + 125)} == {Verdict.PASS}


def test_a_fail_stands_in_the_dark() -> None:
    chosen, evidence, _ = judged(Rates(wrong=0.4))
    found = judge(chosen, blind(evidence, NOW, "down"), NOW + 1)
    assert overall(chosen, blind(evidence, NOW, "down"), found).verdict is Verdict.FAIL


def test_a_fail_stands_though_evidence_falls_back() -> None:
    chosen, evidence, _ = judged(Rates())
    failed = replace(evidence, failure=Failure("errors", NOW - 60, 3.2))
    found = {j.name: j.verdict for j in judge(chosen, failed, NOW)}
    assert found["errors"] is Verdict.FAIL


@pytest.mark.parametrize(("metric", "gate"), [(REQUESTS, "errors"), (LATENCY, "latency"), (FEEDBACK, "accuracy")])
def test_an_absent_metric_cannot_be_measured(metric: str, gate: str) -> None:
    chosen, fleet = plan(), fleet_of(Rates())
    series = [s for s in fleet.series() if s.name != metric]
    evidence = update(chosen, start(chosen), series, fleet.facts(), NOW)
    found = {j.name: j for j in judge(chosen, evidence, NOW)}
    assert found[gate].reason is Reason.METRIC_ABSENT
    assert metric in found[gate].message


def test_a_canary_that_just_became_ready_is_not_accused_of_absent_metrics() -> None:
    chosen, fleet = plan(ERRORS), fleet_of(Rates())
    facts = {**fleet.facts()}
    facts["c-0"] = replace(facts["c-0"], ready_since=NOW - 30)
    series = [s for s in fleet.series() if s.pod != "c-0"]
    assert judge(chosen, update(chosen, start(chosen), series, facts, NOW), NOW)[0].reason is Reason.NO_TRAFFIC
    later = update(chosen, start(chosen), series, facts, NOW + 120)
    assert judge(chosen, later, NOW + 120)[0].reason is Reason.METRIC_ABSENT


def test_a_rollout_that_just_began_accuses_nobody_of_absent_metrics() -> None:
    chosen, fleet = replace(plan(), started_at=NOW - 30), fleet_of(Rates())
    series = [s for s in fleet.series() if s.name != FEEDBACK]
    found = {j.name: j for j in judge(chosen, update(chosen, start(chosen), series, fleet.facts(), NOW), NOW)}
    assert found["accuracy"].reason is Reason.NO_FEEDBACK


def test_samples_that_stand_still_cannot_be_measured() -> None:
    chosen, fleet = plan(), fleet_of(Rates())
    evidence = update(chosen, measured(chosen, fleet), fleet.series(), fleet.facts(), NOW + 200)
    found = judge(chosen, evidence, NOW + 200)
    assert {j.reason for j in found} == {Reason.SAMPLES_STALE}
    assert found[0].since == evidence.newest


def test_one_silent_arm_cannot_be_measured() -> None:
    chosen, fleet = plan(ERRORS), fleet_of(Rates())
    series = [s for s in fleet.series() if s.pod != "c-0"] + [
        s for s in fleet.series(until=START + 20) if s.pod == "c-0"
    ]
    found = judge(chosen, update(chosen, start(chosen), series, fleet.facts(), NOW), NOW)
    assert found[0].reason is Reason.SAMPLES_STALE
    assert "canary" in found[0].message


def test_no_labels_is_no_verdict() -> None:
    chosen, fleet = plan(), fleet_of(Rates(), labels=False)
    evidence = measured(chosen, fleet)
    found = {j.name: j for j in judge(chosen, evidence, NOW)}
    assert (found["accuracy"].verdict, found["accuracy"].reason) == (Verdict.INSUFFICIENT_DATA, Reason.NO_FEEDBACK)
    assert found["errors"].verdict is Verdict.PASS
    outcome = overall(chosen, evidence, tuple(found.values()))
    assert (outcome.verdict, outcome.gate) == (Verdict.INSUFFICIENT_DATA, "accuracy")


def test_gates_that_are_not_required_hold_nothing_back() -> None:
    chosen = plan(replace(ACCURACY, required=False), ERRORS)
    evidence = measured(chosen, fleet_of(Rates(), labels=False))
    assert overall(chosen, evidence, judge(chosen, evidence, NOW)).verdict is Verdict.PASS


def test_without_required_gates_the_soak_still_counts() -> None:
    chosen = plan(replace(ERRORS, required=False), soak_seconds=600.0)
    evidence = mark_weight(start(chosen), 10, START)
    found = judge(chosen, evidence, START)
    assert overall(chosen, evidence, found, START + 599).verdict is Verdict.INSUFFICIENT_DATA
    assert overall(chosen, evidence, found, START + 600).verdict is Verdict.PASS


def test_without_a_stable_revision_no_gate_applies() -> None:
    chosen = replace(plan(), stable="")
    found = judge(chosen, start(chosen), NOW)
    assert [(j.applicable, j.reason) for j in found] == [(False, Reason.NOT_APPLICABLE)] * 3
    assert overall(chosen, start(chosen), found).verdict is Verdict.PASS


def test_what_is_needed_is_told_with_a_time() -> None:
    chosen = plan(ACCURACY)
    evidence = measured(chosen, fleet_of(Rates()), START + 40)
    (found,) = judge(chosen, evidence, START + 40)
    assert found.reason is Reason.MORE_LABELS_NEEDED
    assert "more canary labels, ~" in found.message


def test_what_warms_up_is_told() -> None:
    chosen = plan(ERRORS, cold_start_requests=100_000, cold_start_seconds=1000.0)
    (found,) = judge(chosen, measured(chosen, fleet_of(Rates())), NOW)
    assert found.reason is Reason.NO_TRAFFIC
    assert "warming up" in found.message


def test_an_unknown_design_effect_is_flagged() -> None:
    _, _, found = judged(Rates(), ERRORS, replace(ACCURACY, phi=1.5))
    assert [j.phi_known for j in found] == [False, True]


def test_a_gate_whose_statistics_change_starts_anew_and_others_keep_theirs() -> None:
    _, evidence, _ = judged(Rates())
    edited = plan(replace(ACCURACY, margin=0.05), ERRORS, replace(LATENCY_GATE, margin=1.5))
    after = update(edited, evidence, [], fleet_of(Rates()).facts(), NOW)
    assert after.gates[0].blocks == after.gates[2].blocks == 0
    assert after.gates[1] == evidence.gates[1]
    assert set(after.watch) > {b.k + 4 for b in after.bounds}


def test_alpha_is_shared_out_and_sums_to_one() -> None:
    assert plan().weights == pytest.approx((0.4, 0.3, 0.3))
    assert plan(ERRORS).weights == (1.0,)
    assert plan(LATENCY_GATE, replace(LATENCY_GATE, name="l2"), ACCURACY).weights == pytest.approx(
        (0.15 / 0.7, 0.15 / 0.7, 0.4 / 0.7)
    )


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1])
def test_margins_that_cannot_be_are_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="gate accuracy"):
        replace(ACCURACY, margin=margin)


def test_a_ratio_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="maxRatio"):
        replace(LATENCY_GATE, margin=1.0)
