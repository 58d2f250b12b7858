"""One picture of the live view as plain data: what is shown, apart from how. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from e2e.demo.journal import Journal, Sighting, answers
from penstock.api.status import RevisionStatus, Verdict
from penstock.core.gates.codec import load_plan
from penstock.core.gates.plan import Plan

RECENT_SECONDS = 20
"""Accuracy on screen is that of so many seconds: long enough to be steady, short enough to move."""
RATE_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Arm:
    """A revision that has pods. `share` is what it answers of all requests, 0 to 1; None without traffic."""

    version: str
    revision: str
    ready: str
    share: float | None
    accuracy: float | None
    p50_ms: float | None


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate: evidence for both sides as natural logarithms, each decisive at its `needs`."""

    name: str
    verdict: str
    canary_n: int
    stable_n: int
    log_fail: float
    log_pass: float
    needs_fail: float
    needs_pass: float
    message: str


@dataclass(frozen=True, slots=True)
class Frame:
    """All that the view shows at one time."""

    title: str
    elapsed: float
    chapter_elapsed: float
    phase: str
    stage: str
    step: str
    weight: int
    stable: Arm | None
    canary: Arm | None
    gates: tuple[Gate, ...]
    rate: float
    sent: int
    failed: int
    message: str
    trouble: str


def picture(journal: Journal, now: float) -> Frame:
    """The picture at Unix time `now`."""
    latest = journal.latest
    names = journal.version_names()
    with journal.news:
        marks = list(journal.marks)
        seconds = list(journal.seconds[-RECENT_SECONDS:])
        totals, trouble = journal.totals, journal.trouble
    status = latest.status if latest else None
    rollout = status.rollout if status else None
    recent = seconds[-RATE_SECONDS:]
    return Frame(
        title=marks[-1].title if marks else "",
        elapsed=now - marks[0].at if marks else 0.0,
        chapter_elapsed=now - marks[-1].at if marks else 0.0,
        phase=(latest.phase if latest else None) or "Pending",
        stage=(latest.stage if latest else None) or "",
        step=(rollout.step if rollout else None) or "",
        weight=latest.weight if latest else 0,
        stable=_arm(status.stable if status else None, names, seconds),
        canary=_arm(status.canary if status else None, names, seconds),
        gates=tuple(_gates(latest)) if latest else (),
        rate=sum(s["sent"] for s in recent) / len(recent) if recent else 0.0,
        sent=totals.get("sent", 0),
        failed=totals.get("failed", 0) - totals.get("failures", {}).get("unsent", 0),
        message=_message(latest) if latest else "",
        trouble=trouble,
    )


def _message(sighting: Sighting) -> str:
    """What the gates wait for, from the evidence, which is fresher than the status; else the status' own words."""
    waiting = [g.message for g in sighting.gates if g.message and g.verdict != Verdict.PASS]
    return "; ".join(waiting) or sighting.status.message or ""


def _arm(status: RevisionStatus | None, names: Mapping[str, str], seconds: Sequence[Mapping[str, Any]]) -> Arm | None:
    if status is None or not status.revision:
        return None
    revision = status.revision
    right_now = seconds[-RATE_SECONDS:]
    everybody = sum(c["ok"] for s in right_now for c in s["revisions"].values())
    mine, _ = answers(right_now, revision)
    answered, wrong = answers(seconds, revision)
    medians = [s["revisions"][revision]["p50_ms"] for s in right_now if revision in s["revisions"]]
    known = [m for m in medians if m is not None]
    return Arm(
        version=names.get(revision, ""),
        revision=revision,
        ready=f"{status.ready or 0}/{status.replicas or 0}",
        share=mine / everybody if everybody else None,
        accuracy=1 - wrong / answered if answered else None,
        p50_ms=sum(known) / len(known) if known else None,
    )


def _gates(sighting: Sighting) -> list[Gate]:
    plan = _plan(sighting)
    shares = dict(zip((c.name for c in plan.comparisons), plan.weights, strict=True)) if plan else {}
    alpha, beta = (plan.alpha, plan.beta) if plan else (0.05, 0.05)
    return [
        Gate(
            name=gate.name,
            verdict=gate.verdict or Verdict.INSUFFICIENT_DATA,
            canary_n=(gate.samples.canary if gate.samples else None) or 0,
            stable_n=(gate.samples.stable if gate.samples else None) or 0,
            log_fail=(gate.log_evidence.fail if gate.log_evidence else None) or 0.0,
            log_pass=(gate.log_evidence.pass_ if gate.log_evidence else None) or 0.0,
            needs_fail=log(1 / (alpha * shares.get(gate.name, 1.0))),
            needs_pass=log(1 / beta),
            message=gate.message or "",
        )
        for gate in sighting.gates
    ]


def _plan(sighting: Sighting) -> Plan | None:
    """The measuring plan: the gates share alpha, so each needs more evidence than alone to fail a revision."""
    evidence = sighting.evidence
    if evidence is None or evidence.spec.plan is None:
        return None
    try:
        return load_plan(evidence.spec.plan)
    except ValueError:
        return None
