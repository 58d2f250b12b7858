"""Verdicts of the gates and of the rollout, with reasons for machines and messages for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import log

from penstock.core.gates import wording
from penstock.core.gates.plan import Comparison, Plan
from penstock.core.gates.record import Evidence, GateRecord
from penstock.core.gates.scoring import weighted_log_sum
from penstock.core.gates.verdict import Verdict


class Reason(StrEnum):
    """Why a gate says what it says."""

    CANARY_WORSE = "CanaryWorse"
    NOT_WORSE = "NotWorse"
    MORE_LABELS_NEEDED = "MoreLabelsNeeded"
    MORE_REQUESTS_NEEDED = "MoreRequestsNeeded"
    SOAK_NOT_OVER = "SoakNotOver"
    STEP_NOT_MEASURED = "StepNotMeasured"
    NO_TRAFFIC = "NoTraffic"
    NO_FEEDBACK = "NoFeedback"
    METRIC_ABSENT = "MetricAbsent"
    DUPLICATE_SERIES = "DuplicateSeries"
    SAMPLES_STALE = "SamplesStale"
    SOURCE_DOWN = "SourceDown"
    NOT_APPLICABLE = "NotApplicable"


@dataclass(frozen=True, slots=True)
class GateJudgement:
    """What one gate says now.

    Counts are what went into the evidence: trials of each arm and how many were bad (for latency: above the bound
    that the message speaks of). log_e_fail, log_e_pass: natural logarithms of the evidence. `since`: for
    CannotMeasure the unix time it began. phi_known: False = no A/A comparison, outcomes taken as independent.
    """

    name: str
    applicable: bool
    required: bool
    verdict: Verdict
    reason: Reason
    message: str
    canary_n: int = 0
    canary_bad: int = 0
    stable_n: int = 0
    stable_bad: int = 0
    log_e_fail: float = 0.0
    log_e_pass: float = 0.0
    since: float | None = None
    phi_known: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all gates say together; gate names the one that decides or that is waited for."""

    verdict: Verdict
    gate: str | None
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class _Finding:
    verdict: Verdict
    reason: Reason
    message: str
    since: float | None = None


def judge(plan: Plan, evidence: Evidence, now: float) -> tuple[GateJudgement, ...]:
    """Each comparison's verdict at `now` (unix seconds), in the plan's order.

    FAIL stands once reached, whatever the source does. Otherwise an unmeasurable signal is CANNOT_MEASURE even where
    its gate had passed: a blind rollout stays where it is.
    """
    return tuple(
        _judge(plan, evidence, comparison, record, weight, now)
        for comparison, record, weight in zip(plan.comparisons, evidence.gates, plan.weights, strict=True)
    )


def overall(plan: Plan, evidence: Evidence, judgements: tuple[GateJudgement, ...], now: float | None = None) -> Outcome:
    """The rollout's verdict: FAIL on the weighted sum of evidence, PASS when every required applicable gate passes.

    CANNOT_MEASURE goes before INSUFFICIENT_DATA. now: only needed to hold a rollout without any required gate for
    its soak.
    """
    if evidence.failure:
        name = evidence.failure.gate
        message = next((j.message for j in judgements if j.name == name), f"{name}: worse than stable")
        return Outcome(Verdict.FAIL, name, Reason.CANARY_WORSE, message)
    waiting = [j for j in judgements if j.required and j.applicable and j.verdict is not Verdict.PASS]
    for verdict in (Verdict.CANNOT_MEASURE, Verdict.INSUFFICIENT_DATA):
        for judgement in waiting:
            if judgement.verdict is verdict:
                return Outcome(verdict, judgement.name, judgement.reason, judgement.message)
    left = 0.0 if now is None else soak_left(plan, evidence, now)
    if left > 0:
        message = f"soaking for another {wording.span(left)}"
        return Outcome(Verdict.INSUFFICIENT_DATA, None, Reason.SOAK_NOT_OVER, message)
    return Outcome(Verdict.PASS, None, Reason.NOT_WORSE, "all gates passed")


def soak_left(plan: Plan, evidence: Evidence, now: float) -> float:
    """Seconds of soak still to go, counted from when the canary first got weight (else from the start)."""
    began = plan.started_at if evidence.exposed_at is None else evidence.exposed_at
    return began + plan.soak_seconds - now


def _judge(
    plan: Plan, evidence: Evidence, comparison: Comparison, record: GateRecord, weight: float, now: float
) -> GateJudgement:
    if not plan.stable:
        message = f"{comparison.name}: no stable revision to compare with"
        found = _Finding(Verdict.INSUFFICIENT_DATA, Reason.NOT_APPLICABLE, message)
    else:
        found = (
            _failed(plan, evidence, comparison, record, weight)
            or _blind(evidence, comparison)
            or _passed(plan, evidence, comparison, record, now)
            or _waiting(plan, evidence, comparison, record)
        )
    canary_bad, stable_bad = wording.bad_counts(comparison, record, found.verdict)
    return GateJudgement(
        comparison.name,
        bool(plan.stable),
        comparison.required,
        found.verdict,
        found.reason,
        found.message,
        record.canary_n,
        canary_bad,
        record.stable_n,
        stable_bad,
        record.log_e_fail,
        record.state.log_e_pass if record.state else 0.0,
        found.since,
        comparison.phi is not None,
    )


def _failed(
    plan: Plan, evidence: Evidence, comparison: Comparison, record: GateRecord, weight: float
) -> _Finding | None:
    failure = evidence.failure
    if failure is None:
        return None
    alone = record.canary_n >= plan.min_canary_trials and log(weight) + record.log_e_fail >= log(1 / plan.alpha)
    if failure.gate != comparison.name and not alone:
        return None
    total = max(weighted_log_sum(plan, evidence)[0], failure.log_e)
    message = wording.worse(comparison, record, evidence.bounds, total)
    return _Finding(Verdict.FAIL, Reason.CANARY_WORSE, message)


def _blind(evidence: Evidence, comparison: Comparison) -> _Finding | None:
    if evidence.blind_since is not None:
        message = wording.unmeasured(comparison, evidence.blind_reason)
        return _Finding(Verdict.CANNOT_MEASURE, Reason.SOURCE_DOWN, message, evidence.blind_since)
    for fault in evidence.faults:
        if fault.signal == comparison.signal:
            message = wording.unmeasured(comparison, fault.detail)
            return _Finding(Verdict.CANNOT_MEASURE, Reason(fault.reason), message, fault.since)
    return None


def _passed(plan: Plan, evidence: Evidence, comparison: Comparison, record: GateRecord, now: float) -> _Finding | None:
    if record.peak_pass < log(1 / plan.beta):
        return None
    message = wording.not_worse(comparison, record, evidence.bounds, plan.beta)
    left = soak_left(plan, evidence, now)
    if left > 0:
        waiting = f"{message}; soaking for another {wording.span(left)}"
        return _Finding(Verdict.INSUFFICIENT_DATA, Reason.SOAK_NOT_OVER, waiting)
    if comparison.signal != "accuracy" and evidence.blocks_at_weight == 0:
        waiting = f"{message}; not yet measured at the current weight"
        return _Finding(Verdict.INSUFFICIENT_DATA, Reason.STEP_NOT_MEASURED, waiting)
    return _Finding(Verdict.PASS, Reason.NOT_WORSE, message)


def _waiting(plan: Plan, evidence: Evidence, comparison: Comparison, record: GateRecord) -> _Finding:
    labels = comparison.signal == "accuracy"
    if not record.blocks:
        reason = Reason.NO_FEEDBACK if labels else Reason.NO_TRAFFIC
        return _Finding(Verdict.INSUFFICIENT_DATA, reason, wording.nothing_yet(plan, evidence, comparison))
    reason = Reason.MORE_LABELS_NEEDED if labels else Reason.MORE_REQUESTS_NEEDED
    return _Finding(Verdict.INSUFFICIENT_DATA, reason, wording.undecided(plan, evidence, comparison, record))
