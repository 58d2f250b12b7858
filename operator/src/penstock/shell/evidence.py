"""Measures the rollout under way, and keeps its evidence: the only place where samples become a Measurement."""

from __future__ import annotations

from dataclasses import replace

from penstock.api.status import Stage
from penstock.core import analysis
from penstock.core import situations as s
from penstock.core.gates import evidence as gates
from penstock.core.moves import Move
from penstock.core.world import World
from penstock.ports import Cluster, Metrics, MetricsUnavailable, PodTarget, SampleQuery
from penstock.shell.gather import Gathered

MEASURED_STAGES = (Stage.STEPPING, Stage.PROMOTING)


async def measure(cluster: Cluster, metrics: Metrics, seen: Gathered) -> tuple[World, analysis.Running | None]:
    """The World with a Measurement, where a canary is exposed. A source that fails is data: blindness."""
    world = seen.world
    running = _running(world, seen)
    if running is None:
        return world, None
    traffic = world.status.traffic
    weight = (traffic.applied_weight if traffic else 0) or 0
    query = SampleQuery(
        namespace=world.owner.namespace,
        model=world.owner.name,
        since=gates.oldest_cursor(running.evidence) or running.plan.started_at,
        pods=[
            PodTarget(p.name, p.ip, p.revision, p.ports)
            for r in (world.stable, world.canary)
            for p in (r.pods if r else ())
            if p.ip and not p.deleting
        ],
        names=analysis.metric_names(running.plan),
        bucket_bounds=gates.wanted_buckets(running.evidence),
    )
    try:
        samples = await metrics.samples(query)
        evidence = analysis.advance(running, samples, analysis.pod_facts([world.stable, world.canary]), world.now)
    except MetricsUnavailable as error:
        evidence = gates.blind(running.evidence, world.now, str(error))
    if world.traffic.confirmed and s.rollout_of(world).stage == Stage.STEPPING:
        evidence = gates.mark_weight(evidence, weight, world.now)
    exact = s.strategy(world).router.exact
    return replace(world, measurement=analysis.measure(running, evidence, weight, world.now, exact=exact)), running


def _running(world: World, seen: Gathered) -> analysis.Running | None:
    rollout, stable, canary = world.status.rollout, world.stable, world.canary
    if rollout is None or rollout.stage not in MEASURED_STAGES or stable is None or canary is None:
        return None
    if s.spec_is_unreadable(world):
        return None  # its gates are not known, and others would take over the evidence
    if rollout.analysis_ref is None or not rollout.analysis_ref.name:
        return None
    name = rollout.analysis_ref.name
    live = next((a for a in seen.analyses if a["metadata"]["name"] == name), None)
    plan = analysis.plan_of(world.spec, rollout, stable.name, canary.name, world.settings.scrape_seconds)
    return analysis.resume(name, plan, live)


async def write_evidence(cluster: Cluster, world: World, running: analysis.Running, move: Move | None) -> None:
    """Before the status that rests on it: once per closed block, and when the analysis ends."""
    ended = move.ended if move else None
    measured, rollout, canary = world.measurement, world.status.rollout, world.canary
    if measured is None or rollout is None or canary is None or not analysis.is_news(running, measured, ended):
        return
    live = running.live
    if live is None:
        live = await cluster.create(analysis.manifest(world.owner, rollout, world.spec, running, canary.live))
    status = analysis.status_of(running, measured, ended, world.now)
    await cluster.replace_status({**live, "status": dict(status)})
