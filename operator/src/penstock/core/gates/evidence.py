"""The evidence of one rollout: raw counters in, verdicts out. The surface the rollout machine works with.

    evidence = start(plan)                                    # or adopt(plan, load(stored)): gates may have been edited
    evidence = mark_weight(evidence, 5, at)                   # whenever the route has a new weight
    evidence = update(plan, evidence, series, pods, now)      # samples in hand: any batching, overlaps allowed
    evidence = blind(evidence, since, "connection refused")   # instead, when the source gave none
    judgements = judge(plan, evidence, now)
    outcome = overall(plan, evidence, judgements, now)
    stored = dump(evidence); evidence = load(stored)          # persist when evidence.milestones has changed

Everything is pure and deterministic: the same samples give the same evidence in whatever batches they come.
Evidence that was not persisted since its last milestone may be dropped: the counters tell it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from penstock.core.gates.codec import dump, dump_plan, load, load_plan
from penstock.core.gates.folding import adopt, begin, fold
from penstock.core.gates.grid import GRID, INFINITE
from penstock.core.gates.judging import GateJudgement, Outcome, Reason, judge, overall, soak_left
from penstock.core.gates.plan import Comparison, Plan
from penstock.core.gates.record import Evidence
from penstock.core.gates.samples import FEEDBACK, LATENCY, REQUESTS, PodFact, Series
from penstock.core.gates.share import share_consistent

_CATCH_UP = 600.0

__all__ = [
    "FEEDBACK",
    "LATENCY",
    "REQUESTS",
    "Comparison",
    "Evidence",
    "GateJudgement",
    "Outcome",
    "Plan",
    "PodFact",
    "Reason",
    "Series",
    "adopt",
    "blind",
    "dump",
    "dump_plan",
    "judge",
    "load",
    "load_plan",
    "mark_weight",
    "observed_share",
    "oldest_cursor",
    "overall",
    "share_consistent",
    "soak_left",
    "start",
    "update",
    "wanted_buckets",
]


def start(plan: Plan) -> Evidence:
    """No evidence yet."""
    return begin(plan)


def update(
    plan: Plan,
    evidence: Evidence,
    series: Sequence[Series],
    pods: Mapping[str, PodFact],
    now: float,
) -> Evidence:
    """Evidence after the given samples.

    series: every counter of REQUESTS, LATENCY and FEEDBACK of the model's pods, both arms. Samples at or before a
    pod's cursor are skipped. pods: the living pods by name; one that is missing is taken for deleted. now: wall
    clock in unix seconds, used only to date faults. Comparisons edited since the last call are adopted: a gate whose
    statistics changed starts anew, the others keep their evidence. Ends blindness.
    """
    return fold(plan, evidence, series, pods, now)


def blind(evidence: Evidence, since: float, reason: str) -> Evidence:
    """The source gave nothing: every gate is CannotMeasure until the next update. The first `since` is kept."""
    if evidence.blind_since is not None:
        return replace(evidence, blind_reason=reason)
    return replace(evidence, blind_since=since, blind_reason=reason, milestones=evidence.milestones + 1)


def mark_weight(evidence: Evidence, weight: float, at: float) -> Evidence:
    """Note that the canary's weight (percent) is in force since `at` (unix seconds). The same weight again: no-op.

    The open block of requests ends there, the observed share starts over, and PASS of errors and latency waits for
    one block measured at the new weight.
    """
    if evidence.weight == weight:
        return evidence
    exposed = at if evidence.exposed_at is None and weight > 0 else evidence.exposed_at
    return replace(
        evidence,
        weight=weight,
        weight_at=at,
        exposed_at=exposed,
        cut_at=at,
        blocks_at_weight=0,
        share=(0, 0),
        milestones=evidence.milestones + 1,
    )


def observed_share(evidence: Evidence, since: float | None = None) -> tuple[int, int]:
    """(canary requests, all requests) over synchronous windows since the weight was last marked.

    (0, 0) = no share can be told: nothing counted yet, only a subset of pods is read, or `since` is later than that
    mark.
    """
    marked = evidence.weight_at
    if evidence.partial or (since is not None and marked is not None and since > marked):
        return (0, 0)
    return evidence.share


def oldest_cursor(evidence: Evidence) -> float | None:
    """The sample time (unix seconds) from which on samples are wanted; None before the first.

    Pods long silent are not waited for: should they come back, their counters still hold what they missed.
    """
    newest = evidence.newest
    if newest is None:
        return None
    return min((c.at for c in evidence.cursors.values() if newest - c.at <= _CATCH_UP), default=newest)


def wanted_buckets(evidence: Evidence) -> tuple[str, ...] | None:
    """The `le` values of the latency buckets still needed; None = all, as long as bounds are not chosen."""
    if not evidence.watch:
        return None
    return tuple("+Inf" if k >= INFINITE else repr(GRID[k]) for k in evidence.watch)
