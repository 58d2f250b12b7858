"""Messages for people: what was seen, on how many requests or labels, how sure, what is still needed."""

from __future__ import annotations

from math import exp

from penstock.core.gates.grid import FLOOR, GRID, Bound
from penstock.core.gates.outlook import accusing_bound, canary_trials_to_pass, lagging_bound, rate
from penstock.core.gates.plan import GROWTH, Comparison, Plan
from penstock.core.gates.record import Evidence, GateRecord
from penstock.core.gates.verdict import Verdict

_TRIALS = {"accuracy": "labels", "errors": "requests", "latency": "requests"}


def percent(share: float) -> str:
    """A share as percent with three significant places near the ends: 0.0312 -> "3.12 %"."""
    value = 100 * share
    edge = min(value, 100 - value)
    return f"{value:.2f} %" if 0 < edge < 5 else f"{value:.1f} %"


def span(seconds: float) -> str:
    """A duration in one or two units: 95 -> "1 min 35 s"."""
    total = max(1, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 600 and total % 60:
        return f"{total // 60} min {total % 60} s"
    if total < 5400:
        return f"{round(total / 60)} min"
    if total < 172800:
        return f"{total / 3600:.1f} h"
    return f"{total / 86400:.1f} days"


def bad_counts(comparison: Comparison, record: GateRecord, verdict: Verdict) -> tuple[int, int]:
    """Bad outcomes of (canary, stable) that a message about this verdict speaks of."""
    if comparison.signal != "latency":
        return record.canary_bad, record.stable_bad
    if not record.slow:
        return 0, 0
    if verdict is Verdict.FAIL:
        stable, canary, _ = record.slow[accusing_bound(record)]
    else:
        stable, _, canary = record.slow[lagging_bound(record)]
    return canary, stable


def worse(comparison: Comparison, record: GateRecord, bounds: tuple[Bound, ...], log_e: float) -> str:
    """A FAIL: both rates, the counts, and how likely chance alone does this."""
    odds = f"{exp(log_e):,.0f}" if log_e < 13.8 else "1,000,000"
    sure = f"chance alone does this in fewer than 1 of {odds} rollouts"
    return f"{comparison.name}: {_rates(comparison, record, bounds, failing=True)}: worse, {sure}"


def not_worse(comparison: Comparison, record: GateRecord, bounds: tuple[Bound, ...], beta: float) -> str:
    """A PASS: both rates, the counts, and what is ruled out at which risk."""
    match comparison.signal:
        case "accuracy":
            ruled = f"a drop of {percent(comparison.margin)} points or more is ruled out"
        case "errors":
            ruled = f"a rise of {percent(comparison.margin)} points or more is ruled out"
        case _:
            ruled = f"{ratio(comparison)} times slower or more is ruled out"
    ruled = ruled.replace(" % points", " points")
    seen = _rates(comparison, record, bounds, failing=False)
    return f"{comparison.name}: {seen}: {ruled} (risk {percent(beta)})"


def ratio(comparison: Comparison) -> str:
    """The latency margin as measured, with a note where maxRatio was snapped to the grid."""
    snapped = GROWTH**comparison.pass_steps
    if abs(snapped / comparison.margin - 1) < 0.002:
        return f"{snapped:.2f}"
    return f"{snapped:.2f} (maxRatio {comparison.margin:g} in steps of {GROWTH:g})"


def unmeasured(comparison: Comparison, detail: str) -> str:
    """CannotMeasure: why. Not for how long: a text that changes by itself would be a write at each look."""
    return f"{comparison.name}: cannot be measured: {detail}. The weight stays as it is"


def nothing_yet(plan: Plan, evidence: Evidence, comparison: Comparison) -> str:
    """Why no block has been counted yet."""
    if comparison.signal == "accuracy":
        return f"{comparison.name}: no labels yet for answers of both revisions in this rollout"
    if comparison.signal == "latency" and not evidence.bounds and evidence.blocks:
        return f"{comparison.name}: waiting for 200 requests to one pod of stable to choose latency bounds from"
    canary = [c for c in evidence.cursors.values() if c.arm == "canary"]
    if canary and not any(c.warm for c in canary):
        served = sum(sum(c.outcomes.values()) for c in canary)
        return (
            f"{comparison.name}: canary pods are warming up ({served} requests so far; a pod counts after "
            f"{plan.cold_start_requests} requests and {span(plan.cold_start_seconds)})"
        )
    return f"{comparison.name}: no requests to both revisions counted yet"


def undecided(plan: Plan, evidence: Evidence, comparison: Comparison, record: GateRecord) -> str:
    """What has been seen so far, and about how much more a decision needs."""
    seen = _rates(comparison, record, evidence.bounds, failing=False)
    more = canary_trials_to_pass(plan, comparison, record)
    what = _TRIALS[comparison.signal]
    if more is None:
        return f"{comparison.name}: {seen}: between worse and good enough so far, more {what} needed"
    pace = rate(record)
    eta = f", ~{span(more / pace)}" if pace else ""
    return f"{comparison.name}: {seen}: needs about {more:,} more canary {what}{eta}"


def _rates(comparison: Comparison, record: GateRecord, bounds: tuple[Bound, ...], *, failing: bool) -> str:
    n_c, n_s = max(record.canary_n, 1), max(record.stable_n, 1)
    counts = f"{record.canary_n:,} and {record.stable_n:,} {_TRIALS[comparison.signal]}"
    match comparison.signal:
        case "accuracy":
            right = percent(1 - record.canary_bad / n_c), percent(1 - record.stable_bad / n_s)
            return f"canary {right[0]} right, stable {right[1]} ({counts})"
        case "errors":
            failed = percent(record.canary_bad / n_c), percent(record.stable_bad / n_s)
            return f"canary {failed[0]} failed, stable {failed[1]} ({counts})"
    i = accusing_bound(record) if failing else lagging_bound(record)
    if i >= len(record.slow) or i >= len(bounds):
        return counts
    stable, slow_fail, slow_pass = record.slow[i]
    slow, steps = (slow_fail, comparison.fail_steps) if failing else (slow_pass, comparison.pass_steps)
    bound = bounds[i]
    if bound.k == FLOOR:
        slowest = f"{percent(slow / n_c)} of canary's requests take over {_ms(GRID[0])}"
        return f"{slowest}, most of stable's are faster than that ({counts})"
    return (
        f"{percent(slow / n_c)} of canary's requests take over {_ms(GRID[bound.k + steps])}, "
        f"{percent(stable / n_s)} of stable's over {_ms(bound.seconds)} ({counts})"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
