"""What keeps a signal from being measured: absent metrics, two series for one counter, samples that stand still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.core.gates.frames import Reading
from penstock.core.gates.plan import Plan
from penstock.core.gates.record import Arm, Evidence, Fault
from penstock.core.gates.samples import FEEDBACK, LATENCY, REQUESTS, SILENT, PodFact

ABSENT_AFTER = 90.0
_METRICS = {"errors": (REQUESTS,), "latency": (REQUESTS, LATENCY), "accuracy": (FEEDBACK,)}


def faults(
    plan: Plan, evidence: Evidence, reading: Reading, pods: Mapping[str, PodFact], now: float
) -> tuple[Fault, ...]:
    """Faults of each signal of the plan; one that persists keeps the time it began."""
    began = {(f.signal, f.reason): f.since for f in evidence.faults}
    found = []
    for signal in dict.fromkeys(c.signal for c in plan.comparisons):
        fault = (
            _doubled(signal, evidence, reading, now)
            or _still(signal, evidence, plan, now)
            or _absent(signal, plan, evidence, pods, now)
            or _one_arm_silent(signal, plan, evidence, pods, now)
        )
        if fault:
            found.append(replace(fault, since=began.get((fault.signal, fault.reason), fault.since)))
    return tuple(found)


def _doubled(signal: str, evidence: Evidence, reading: Reading, now: float) -> Fault | None:
    if not reading.shown:
        return next((f for f in evidence.faults if (f.signal, f.reason) == (signal, "DuplicateSeries")), None)
    for metric in _METRICS[signal]:
        names = sorted(reading.doubled.get(metric, ()))
        if names:
            detail = (
                f"pod {names[0]} has two series for one counter of {metric}: it is scraped twice; "
                "keep one scrape job for it, or drop labels that tell replicas of Prometheus apart"
            )
            return Fault(signal, "DuplicateSeries", now, detail)
    return None


def _still(signal: str, evidence: Evidence, plan: Plan, now: float) -> Fault | None:
    """No sample for long. Sample times are the source's; clocks are taken to agree within 30 s."""
    newest = evidence.newest
    if newest is None or now - newest <= max(SILENT, 3 * plan.block_seconds):
        return None
    return Fault(signal, "SamplesStale", newest, "the source answers, but with no new samples: are the pods scraped?")


def _absent(signal: str, plan: Plan, evidence: Evidence, pods: Mapping[str, PodFact], now: float) -> Fault | None:
    for metric in _METRICS[signal]:
        if metric == FEEDBACK and any(shown.endswith(metric) for shown in evidence.shown):
            continue
        for arm, revision in (("canary", plan.canary), ("stable", plan.stable)):
            ready = [f.ready_since for f in pods.values() if f.revision == revision and f.ready_since is not None]
            if not ready or f"{arm} {metric}" in evidence.shown:
                continue
            if now - max(min(ready), plan.started_at) <= ABSENT_AFTER:
                continue
            detail = f"no pod of {arm} ({revision}) exposes {metric}: check that its metrics port is scraped"
            return Fault(signal, "MetricAbsent", now, detail)
    return None


def _one_arm_silent(
    signal: str, plan: Plan, evidence: Evidence, pods: Mapping[str, PodFact], now: float
) -> Fault | None:
    """An arm all of whose living pods have no sample for 150 s while the other's go on.

    One that never had a sample counts from when it was Ready: pods that replaced others may not be scraped at all.
    """
    newest = evidence.newest
    if newest is None or signal == "accuracy":
        return None
    sides: tuple[tuple[Arm, str, Arm], ...] = (("canary", plan.canary, "stable"), ("stable", plan.stable, "canary"))
    for arm, revision, other in sides:
        heard = [c.at for p, c in evidence.cursors.items() if c.arm == arm and p in pods]
        ready = [f.ready_since for f in pods.values() if f.revision == revision and f.ready_since is not None]
        since = max(heard, default=max(min(ready, default=newest), plan.started_at))
        if newest - max(since, evidence.resumed.get(other, since)) > SILENT:
            return Fault(signal, "SamplesStale", now, f"no samples from {arm} while the other side's go on")
    return None
