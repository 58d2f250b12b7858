"""Closed blocks into the e-processes of the gates, and the rollout's FAIL."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

from penstock.core.gates.grid import FLOOR, Bound
from penstock.core.gates.latency import LatencyBlock, LatencyShift, LatencyState
from penstock.core.gates.plan import Comparison, Plan
from penstock.core.gates.record import Evidence, Failure, GateRecord, Lane, Tally
from penstock.core.gates.twosample import TwoSample, TwoSampleState
from penstock.core.gates.verdict import Block

TAIL_LEVEL = 0.99
TAIL_RATE = 0.2


def score_requests(plan: Plan, evidence: Evidence, lane: Lane) -> Evidence:
    """Evidence after a closed block of requests (errors and latency gates)."""
    if lane.canary.buckets and lane.stable.buckets and not evidence.bounds_settled:
        evidence = _settle_bounds(evidence, lane)
    gates = []
    for comparison, record in zip(plan.comparisons, evidence.gates, strict=True):
        match comparison.signal:
            case "errors":
                gates.append(_score_rate(plan, comparison, record, lane, evidence.error_history))
            case "latency":
                gates.append(_score_latency(plan, comparison, record, lane, evidence))
            case _:
                gates.append(record)
    counted = replace(evidence, gates=tuple(gates), blocks_at_weight=evidence.blocks_at_weight + 1)
    return _conclude(plan, counted, lane)


def score_labels(plan: Plan, evidence: Evidence, lane: Lane) -> Evidence:
    """Evidence after a closed block of labels (accuracy gates)."""
    gates = tuple(
        _score_rate(plan, comparison, record, lane, evidence.label_history)
        if comparison.signal == "accuracy"
        else record
        for comparison, record in zip(plan.comparisons, evidence.gates, strict=True)
    )
    return _conclude(plan, replace(evidence, gates=gates), lane)


def weighted_log_sum(plan: Plan, evidence: Evidence) -> tuple[float, str]:
    """ln of the weighted sum of FAIL evidence over gates with enough canary trials, and its largest term's gate."""
    terms = [
        (log(weight) + record.log_e_fail, record.name)
        for weight, record in zip(plan.weights, evidence.gates, strict=True)
        if record.canary_n >= plan.min_canary_trials
    ]
    if not terms:
        return float("-inf"), ""
    top, name = max(terms)
    return top + log(sum(exp(value - top) for value, _ in terms)), name


def two_sample(plan: Plan, comparison: Comparison) -> TwoSample:
    """The test of an accuracy or errors gate."""
    return TwoSample(comparison.margin, plan.alpha, plan.beta, comparison.phi or 1.0)


def _conclude(plan: Plan, evidence: Evidence, lane: Lane) -> Evidence:
    evidence = replace(evidence, blocks=evidence.blocks + 1)
    if evidence.failure:
        return evidence
    total, gate = weighted_log_sum(plan, evidence)
    if total < log(1 / plan.alpha):
        return evidence
    return replace(evidence, failure=Failure(gate, max(lane.canary.until, lane.stable.until), total))


def _settle_bounds(evidence: Evidence, lane: Lane) -> Evidence:
    """Leave out p99 where the canary's first block shows under 0.2 requests/s: it would take days to decide."""
    seconds = max(lane.canary.until - (lane.opened or 0.0), 1e-9)
    bounds = evidence.bounds
    if lane.canary.n / seconds < TAIL_RATE:
        kept = tuple(b for b in bounds if b.level != TAIL_LEVEL)
        bounds = kept if any(b.needed for b in kept) else bounds
    return replace(evidence, bounds=bounds, bounds_settled=True)


def _score_rate(
    plan: Plan, comparison: Comparison, record: GateRecord, lane: Lane, history: tuple[int, int]
) -> GateRecord:
    canary, stable = lane.canary, lane.stable
    gate = two_sample(plan, comparison)
    state = record.state if isinstance(record.state, TwoSampleState) else gate.start(*history)
    block = Block(min(canary.bad, canary.n), canary.n, min(stable.bad, stable.n), stable.n)
    return replace(
        record,
        state=gate.update(state, block),
        canary_n=record.canary_n + block.canary_n,
        canary_bad=record.canary_bad + block.canary_bad,
        stable_n=record.stable_n + block.stable_n,
        stable_bad=record.stable_bad + block.stable_bad,
        first_at=lane.opened if record.first_at is None else record.first_at,
        last_at=max(canary.until, stable.until),
        blocks=record.blocks + 1,
    )


def _score_latency(
    plan: Plan, comparison: Comparison, record: GateRecord, lane: Lane, evidence: Evidence
) -> GateRecord:
    bounds = evidence.bounds
    if not bounds or not lane.canary.buckets or not lane.stable.buckets:
        return record
    block = _latency_block(comparison, lane, bounds, evidence.watch)
    if not block.canary_n or not block.stable_n:
        return record
    gate = LatencyShift(tuple(b.needed for b in bounds), plan.alpha, plan.beta, comparison.phi or 1.0)
    state = record.state if isinstance(record.state, LatencyState) else gate.start()
    rises = zip(block.stable_above, block.canary_above_fail, block.canary_above_pass, strict=True)
    before = record.slow or ((0, 0, 0),) * len(bounds)
    slow = tuple((a + x, b + y, c + z) for (a, b, c), (x, y, z) in zip(before, rises, strict=True))
    return replace(
        record,
        state=gate.update(state, block),
        canary_n=record.canary_n + block.canary_n,
        stable_n=record.stable_n + block.stable_n,
        slow=slow,
        first_at=lane.opened if record.first_at is None else record.first_at,
        last_at=max(lane.canary.until, lane.stable.until),
        blocks=record.blocks + 1,
    )


def _latency_block(
    comparison: Comparison, lane: Lane, bounds: tuple[Bound, ...], watch: tuple[int, ...]
) -> LatencyBlock:
    def above(tally: Tally, bound: Bound, steps: int) -> int:
        n = tally.buckets[-1]
        if bound.k == FLOOR:
            return n if steps < comparison.pass_steps else max(0, n - tally.buckets[watch.index(0)])
        return max(0, n - tally.buckets[watch.index(bound.k + steps)])

    return LatencyBlock(
        lane.canary.buckets[-1],
        lane.stable.buckets[-1],
        tuple(above(lane.stable, b, 0) for b in bounds),
        tuple(above(lane.canary, b, comparison.fail_steps) for b in bounds),
        tuple(above(lane.canary, b, comparison.pass_steps) for b in bounds),
    )
