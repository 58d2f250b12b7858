"""The running analysis: from a spec to a measuring plan, from samples to a Measurement, to the object that keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penstock.api.analysis import AnalysedGate, AnalysisPhase, AnalysisSpec, AnalysisStatus
from penstock.api.base import Timestamp
from penstock.api.modeldeployment import Spec
from penstock.api.rollout import Gate, Signal
from penstock.api.status import RolloutStatus, Verdict
from penstock.core import gates
from penstock.core.gates import evidence as ev
from penstock.core.gates.evidence import Comparison, Evidence, Plan, PodFact, Series
from penstock.core.objects import ROLLOUT_ANALYSIS, Object, ref_of
from penstock.core.render import Owner, metadata
from penstock.core.status import gate_status
from penstock.core.world import Measurement, Revision

LATENCY_TOLERANCE = 1.1
"""A canary up to this much slower is not failed: pods of one and the same model differ by that."""
FEEDBACK_BLOCK_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Running:
    """The analysis of the rollout under way, as the cluster holds it or as it begins."""

    name: str
    plan: Plan
    evidence: Evidence
    seq: int
    live: Object | None


def plan_of(spec: Spec, rollout: RolloutStatus, stable: str, canary: str, scrape_seconds: float) -> Plan:
    """What a rollout measures: fixed when its canary is first exposed. No block is shorter than a scrape interval."""
    analysis = spec.rollout.analysis
    block = max(analysis.block.seconds(), 1.0)
    started = rollout.exposed_at or rollout.started_at
    return Plan(
        stable=stable,
        canary=canary,
        cohort=rollout.id or "",
        comparisons=tuple(_comparison(gate) for gate in spec.rollout.effective_gates()),
        alpha=analysis.alpha,
        beta=analysis.beta,
        block_seconds=block,
        feedback_block_seconds=min(block, max(FEEDBACK_BLOCK_SECONDS, scrape_seconds)),
        soak_seconds=analysis.soak.seconds(),
        cold_start_requests=analysis.warm_up.requests,
        cold_start_seconds=analysis.warm_up.period.seconds(),
        started_at=started.unix() if started else 0.0,
    )


def _comparison(gate: Gate) -> Comparison:
    compare = gate.compare
    return Comparison(
        name=gate.name,
        signal=compare.signal.value,
        margin=compare.margin,
        tolerance=LATENCY_TOLERANCE if compare.signal == Signal.LATENCY else 0.0,
        required=gate.required,
    )


def resume(name: str, plan: Plan, live: Object | None) -> Running:
    """The analysis as it was last written; from nothing where it was never written.

    Gates that were edited meanwhile are adopted, the rest of the plan stays as it was fixed.
    """
    status = (live or {}).get("status") or {}
    if live is None or not status.get("evidence"):
        return Running(name, plan, ev.start(plan), int(status.get("seq", 0)), live)
    kept = replace(ev.load_plan(live["spec"]["plan"]), comparisons=plan.comparisons)
    evidence = ev.adopt(kept, ev.load(status["evidence"]))
    return Running(name, kept, evidence, int(status.get("seq", 0)), live)


def pod_facts(revisions: Sequence[Revision | None]) -> dict[str, PodFact]:
    """What the gates must know of pods, by pod name."""
    return {
        pod.name: PodFact(pod.revision, pod.created_at, pod.ready_since)
        for revision in revisions
        if revision
        for pod in revision.pods
    }


def measure(running: Running, evidence: Evidence, weight: int, now: float, *, exact: bool) -> Measurement:
    """What the evidence says now. `exact`: the router's shares are, so a wrong share speaks against it."""
    judgements = ev.judge(running.plan, evidence, now)
    outcome = ev.overall(running.plan, evidence, judgements, now)
    canary_n, total = ev.observed_share(evidence)
    is_right = ev.share_consistent(canary_n, total, weight / 100) is not False
    return Measurement(
        plan=running.plan,
        evidence=evidence,
        judgements=judgements,
        verdict=outcome.verdict.value,
        message=outcome.message,
        gate=outcome.gate,
        name=running.name,
        seq=running.seq,
        blind=outcome.verdict == gates.Verdict.CANNOT_MEASURE,
        fresh_requests=evidence.share[0],
        observed_weight=100 * canary_n / total if total else None,
        share_is_right=is_right or not exact,
    )


def manifest(owner: Owner, rollout: RolloutStatus, spec: Spec, running: Running, record: Object) -> Object:
    """A new RolloutAnalysis, owned by the canary's record: it is kept as long as that."""
    plan = running.plan
    body = AnalysisSpec(
        model_deployment=owner.name,
        rollout=rollout.id or "",
        attempt=rollout.attempt or 1,
        stable=plan.stable,
        canary=plan.canary,
        started_at=Timestamp.at(plan.started_at),
        gates=tuple(
            AnalysedGate(name=g.name, signal=g.compare.signal, margin=g.compare.margin, required=g.required)
            for g in spec.rollout.effective_gates()
        ),
        plan=ev.dump_plan(plan),
    )
    meta = metadata(owner, running.name, "evidence", plan.canary)
    ref = ref_of(record)
    meta["ownerReferences"] = [
        {
            "apiVersion": ref.kind.api_version,
            "kind": ref.kind.kind,
            "name": ref.name,
            "uid": record["metadata"]["uid"],
            "controller": True,
        }
    ]
    return {
        "apiVersion": ROLLOUT_ANALYSIS.api_version,
        "kind": ROLLOUT_ANALYSIS.kind,
        "metadata": meta,
        "spec": body.to_wire(),
    }


def is_news(running: Running, seen: Measurement, ended: AnalysisPhase | None) -> bool:
    """Worth a write: a block closed since the last one, or the analysis is over."""
    if ended is not None or not (running.live or {}).get("status"):
        return True
    return seen.evidence.milestones != running.evidence.milestones


def status_of(running: Running, seen: Measurement, ended: AnalysisPhase | None, now: float) -> Mapping[str, Any]:
    """The status of the RolloutAnalysis after this reconcile."""
    return AnalysisStatus(
        seq=running.seq + 1,
        phase=ended or AnalysisPhase.RUNNING,
        verdict=Verdict(seen.verdict),
        message=seen.message,
        gates=tuple(gate_status(j) for j in seen.judgements),
        evidence=ev.dump(seen.evidence),
        started_at=Timestamp.at(seen.plan.started_at),
        finished_at=Timestamp.at(now) if ended else None,
    ).to_wire()


def metric_names(plan: Plan) -> list[str]:
    """The raw counters that a plan needs."""
    names_ = ["penstock_requests_total"]
    signals = {c.signal for c in plan.comparisons}
    if "latency" in signals:
        names_ += ["penstock_request_duration_seconds_bucket"]
    if "accuracy" in signals:
        names_ += ["penstock_feedback_total"]
    return names_


def advance(running: Running, samples: Sequence[Series], pods: Mapping[str, PodFact], now: float) -> Evidence:
    """The evidence with new samples in it."""
    return ev.update(running.plan, running.evidence, samples, pods, now)
