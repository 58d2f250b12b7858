"""The status as it is written: the machine's state with everything derived from the world filled in."""

from __future__ import annotations

from penstock.api.base import MESSAGE_LIMIT, Timestamp, clip
from penstock.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Reason,
    drop_condition,
    set_condition,
)
from penstock.api.status import (
    AnalysisRef,
    Confirmed,
    GateStatus,
    LogEvidence,
    Phase,
    RevisionStatus,
    RolloutStatus,
    Samples,
    Status,
    TrafficStatus,
    Verdict,
)
from penstock.core.gates.evidence import GateJudgement
from penstock.core.plan import pods_wanted
from penstock.core.recovery import routed
from penstock.core.routing import selector
from penstock.core.situations import spec_is_unreadable, status_was_lost
from penstock.core.story import Story, impact_of, tell
from penstock.core.world import World

REPORT_SECONDS = 300
"""How often the gates' numbers in the status are refreshed when no verdict changes: each write costs etcd."""


def complete(world: World, before: Status) -> Status:
    """The world's status (after a move, if there was one) with everything derived filled in.

    Returns `before`, the status as it was read, when nothing is new.
    """
    status = world.status
    stable, canary = _revision(world, status.stable), _revision(world, status.canary)
    status = status.model_copy(
        update={
            "stable": stable,
            "canary": canary,
            "traffic": _traffic(world, status.traffic),
            "rollout": _rollout(world, status.rollout, before),
        }
    )
    story = tell(world, status)
    serving = stable or canary
    wanted, ready = (serving.replicas or 0, serving.ready or 0) if serving else (world.spec.replicas, _unknown(world))
    status = status.model_copy(
        update={
            "observed_generation": world.generation,
            "phase": story.phase,
            "message": clip(MESSAGE_LIMIT)(story.message),
            "ready": f"{ready}/{wanted}",
            "replicas": ready,
            "selector": _selector_text(world, serving),
            "url": f"http://{world.owner.name}.{world.owner.namespace}.svc/v2/models/{world.owner.name}",
            "conditions": _conditions(world, status, story, ready),
        }
    )
    if status == before:
        return before
    return status.model_copy(update={"seq": (before.seq or 0) + 1})


def _unknown(world: World) -> int:
    """Ready pods that the live route leads to, where the status was lost and does not know of them."""
    return sum(world.revisions[name].ready for name in routed(world)) if status_was_lost(world) else 0


def _selector_text(world: World, serving: RevisionStatus | None) -> str:
    labels = selector(world.owner.name, serving.revision if serving else None)
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _revision(world: World, known: RevisionStatus | None) -> RevisionStatus | None:
    if known is None or known.revision is None:
        return None
    live = world.revisions.get(known.revision)
    wanted = known.replicas if spec_is_unreadable(world) else pods_wanted(world).get(known.revision, 0)
    return known.model_copy(
        update={
            "digest": (live.digest if live else None) or known.digest,
            "replicas": wanted,
            "ready": live.ready if live else 0,
        }
    )


def _traffic(world: World, known: TrafficStatus | None) -> TrafficStatus | None:
    if known is None:
        return None
    seen = world.measurement
    confirmed = Confirmed.TRUE if world.traffic.confirmed else Confirmed.FALSE
    if confirmed == Confirmed.TRUE and seen is not None:
        confirmed = Confirmed.UNKNOWN if not seen.fresh_requests else confirmed
        confirmed = confirmed if seen.share_is_right else Confirmed.FALSE
    return known.model_copy(
        update={
            "confirmed": confirmed,
            "route_generation": world.traffic.generation or None,
            "observed_weight": _slow(known.observed_weight, seen.observed_weight if seen else None),
        }
    )


def _slow(old: float | None, new: float | None) -> float | None:
    """The new share where it differs by a point at least: noise is not worth a write."""
    if old is not None and new is not None and abs(old - new) < 1:
        return old
    return None if new is None else round(new, 1)


def _rollout(world: World, rollout: RolloutStatus | None, before: Status) -> RolloutStatus | None:
    seen = world.measurement
    if rollout is None or seen is None:
        return rollout
    gates = tuple(gate_status(j) for j in seen.judgements)
    news = [(g.name, g.verdict, g.reason) for g in gates] != [(g.name, g.verdict, g.reason) for g in rollout.gates]
    due = rollout.reported_at is None or world.now - rollout.reported_at.unix() >= REPORT_SECONDS
    if not news and not due and rollout.step_started_at == _old_step(before):
        return rollout
    return rollout.model_copy(
        update={
            "gates": gates,
            "verdict": Verdict(seen.verdict),
            "analysis_ref": AnalysisRef(name=seen.name, seq=seen.seq),
            "reported_at": Timestamp.at(world.now),
        }
    )


def _old_step(before: Status) -> Timestamp | None:
    return before.rollout.step_started_at if before.rollout else None


def gate_status(judgement: GateJudgement) -> GateStatus:
    """A judgement as status shows it: numbers rounded."""
    return GateStatus(
        name=judgement.name,
        applicable=judgement.applicable,
        verdict=Verdict(judgement.verdict) if judgement.applicable else None,
        reason=judgement.reason,
        message=judgement.message,
        samples=Samples(canary=judgement.canary_n, stable=judgement.stable_n),
        log_evidence=LogEvidence(fail=round(judgement.log_e_fail, 2), pass_=round(judgement.log_e_pass, 2)),
    )


# --- conditions ----------------------------------------------------------------------------------


def _conditions(world: World, status: Status, story: Story, ready: int) -> tuple[Condition, ...]:
    conditions = world.status.conditions
    is_ready = story.phase == Phase.HEALTHY
    serving = ready > 0
    working = story.phase in (Phase.PROGRESSING, Phase.PENDING) and not story.stalled
    serves = Reason.SERVING if serving else Reason.NOT_SERVING
    facts: list[tuple[ConditionType, bool | None, str, str]] = [
        (ConditionType.READY, is_ready, story.reason, story.message),
        (ConditionType.AVAILABLE, serving, serves, impact_of(world, status)),
        (ConditionType.RECONCILING, working or None, story.reason, story.message),
        (ConditionType.STALLED, story.stalled or None, story.reason, story.message),
        (ConditionType.MEASURED, _measured(world), *_measured_words(world)),
    ]
    for type_, holds, reason, message in facts:
        if holds is None:
            conditions = drop_condition(conditions, type_)
            continue
        new = Condition(
            type=type_,
            status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
            reason=reason,
            message=message,
            last_transition_time=Timestamp.at(world.now),
            observed_generation=world.generation,
        )
        conditions = set_condition(conditions, new)
    return conditions


def _measured(world: World) -> bool | None:
    return None if world.measurement is None or world.status.rollout is None else not world.measurement.blind


def _measured_words(world: World) -> tuple[str, str]:
    if world.measurement is None or not world.measurement.blind:
        return Reason.MEASURED, "Counters of both revisions are read."
    return Reason.CANNOT_MEASURE, world.measurement.message
