"""The status that people read: phase, message and conditions, all derived from the machine's state and the world."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.base import Timestamp
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
    Stage,
    Status,
    TrafficStatus,
    Verdict,
)
from penstock.core import recovery
from penstock.core import situations as s
from penstock.core.gates.evidence import GateJudgement
from penstock.core.plan import pods_wanted
from penstock.core.routing import selector
from penstock.core.world import Revision, World

REPORT_SECONDS = 300
"""How often the gates' numbers in the status are refreshed when no verdict changes: each write costs etcd."""


@dataclass(frozen=True, slots=True)
class _Story:
    """One telling of the state: the phase, why, and what to say."""

    phase: Phase
    reason: str
    message: str
    stalled: bool = False


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
    story = _tell(world, status)
    serving = stable or canary
    wanted, ready = (serving.replicas or 0, serving.ready or 0) if serving else (world.spec.replicas, 0)
    status = status.model_copy(
        update={
            "observed_generation": world.generation,
            "phase": story.phase,
            "message": story.message,
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


def _selector_text(world: World, serving: RevisionStatus | None) -> str:
    labels = selector(world.owner.name, serving.revision if serving else None)
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _revision(world: World, known: RevisionStatus | None) -> RevisionStatus | None:
    if known is None or known.revision is None:
        return None
    live = world.revisions.get(known.revision)
    return known.model_copy(
        update={
            "digest": (live.digest if live else None) or known.digest,
            "replicas": pods_wanted(world).get(known.revision, 0),
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


# --- the story -----------------------------------------------------------------------------------


def _ended(text: str) -> str:
    """With a full stop, unless it ends already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _sentence(text: str) -> str:
    """A clause as a sentence: only its first letter changes, since names of fields and kinds must not."""
    return _ended(text[:1].upper() + text[1:])


def _impact(status: Status) -> str:
    """What users get, first of all."""
    stable, canary = status.stable, status.canary
    weight = (status.traffic.applied_weight if status.traffic else 0) or 0
    if stable is None:
        return "Nothing serves yet." if not canary or not canary.ready else f"Serving {canary.revision}."
    if not stable.ready:
        return f"Stable {stable.revision} has no ready pod."
    share = f", {weight} % to {canary.revision}" if canary and weight else ""
    return f"Serving {stable.revision} {stable.ready}/{stable.replicas}{share}, no user impact." if not share else (
        f"Serving {stable.revision} {stable.ready}/{stable.replicas}{share}."
    )  # fmt: skip


def _tell(world: World, status: Status) -> _Story:
    if world.conflict is not None:
        return _Story(
            Phase.DEGRADED, Reason.NAME_CONFLICT,
            f"{_impact(status)} {world.conflict} exists and belongs to somebody else, so nothing is touched. "
            "Rename this ModelDeployment or delete that object.", stalled=True,
        )  # fmt: skip
    if s.status_was_lost(world):
        route = recovery.favoured(world)
        return _Story(
            Phase.DEGRADED, Reason.RECOVERY_AMBIGUOUS,
            f"The status was lost, and records and route contradict each other (the route favours {route}); traffic "
            "stays as it is. Delete the revision that must not serve (its ControllerRevision and Deployment).",
            stalled=True,
        )  # fmt: skip
    if status.rollout is not None and status.canary is not None:
        return _tell_rolling(world, status)
    return _tell_resting(world, status)


def _tell_rolling(world: World, status: Status) -> _Story:
    assert status.rollout is not None  # noqa: S101
    rollout, impact = status.rollout, _impact(status)
    canary = world.revisions.get((status.canary.revision if status.canary else None) or "")
    if world.resolution.reason:
        impact = f"{impact} The newest spec is not used ({world.resolution.reason}: {world.resolution.message})."
    if s.is_paused(world):
        return _Story(Phase.PAUSED, Reason.PAUSED, f"{impact} Paused at step {rollout.step} by spec.paused.")
    if s.is_suspended(world):
        return _Story(Phase.PAUSED, Reason.SUSPENDED, f"{impact} spec.replicas is 0: the rollout waits.")
    match rollout.stage:
        case Stage.RESOLVING:
            return _Story(Phase.PROGRESSING, Reason.RESOLVING, f"{impact} Rendering revision {_name(canary, status)}.")
        case Stage.LOADING:
            return _Story(Phase.PROGRESSING, Reason.LOADING, f"{impact} {_loading(world, canary, status)}")
        case Stage.PROMOTING:
            why = "" if world.traffic.confirmed else f" {_sentence(world.traffic.problem)}"
            return _Story(
                Phase.PROGRESSING,
                Reason.PROMOTING,
                f"{impact} Moving all traffic to {_name(canary, status)}.{why}",
            )
        case _:
            return _tell_stepping(world, status, impact)


def _name(canary: Revision | None, status: Status) -> str:
    return canary.name if canary else str(status.canary.revision if status.canary else "")


def _loading(world: World, canary: Revision | None, status: Status) -> str:
    if canary is None:
        return f"Starting {_name(canary, status)}."
    trouble = ""
    if canary.unschedulable:
        trouble = f" Unschedulable: {canary.unschedulable}."
    elif canary.failure:
        trouble = f" {canary.failure.reason}: {canary.failure.message}"
    elif world.schema_problem and s.canary_is_ready(world):
        trouble = f" {world.schema_problem}"
    elif s.canary_is_ready(world) and not world.traffic.confirmed and world.traffic.problem:
        trouble = f" {_sentence(world.traffic.problem)}"
    return f"Loading {canary.name}: {canary.ready} of {s.canary_pods_wanted(world)} pods ready.{trouble}"


def _tell_stepping(world: World, status: Status, impact: str) -> _Story:
    rollout, seen = s.rollout_of(world), world.measurement
    plan, index = s.strategy(world), rollout.step_index or 0
    where = f"{impact} Step {rollout.step}"
    step = plan.steps[index] if index < len(plan.steps) else None
    if seen is not None and s.a_gate_failed(world) and s.stable_is_down(world):
        return _Story(
            Phase.DEGRADED, Reason.STABLE_BROKEN,
            f"{impact} The canary fails its gates ({seen.message}), but stable has no ready pod to go back to: the "
            "weight stays. Repair stable's pods or apply a spec that works.", stalled=True,
        )  # fmt: skip
    if rollout.blind_since is not None:
        cause = seen.message if seen else "no samples"
        return _Story(
            Phase.PROGRESSING, Reason.CANNOT_MEASURE,
            f"{where}: CannotMeasure since {rollout.blind_since}: {cause} "
            "The weight stays until measuring works again.",
        )  # fmt: skip
    if step is not None and step.pause is not None:
        return _Story(
            Phase.PAUSED,
            Reason.PAUSE_STEP,
            f"{where}: pause. Take the step out of spec.rollout.steps to go on.",
        )
    if not world.traffic.confirmed:
        return _Story(
            Phase.PROGRESSING,
            Reason.ROUTE_NOT_ACCEPTED,
            f"{where}: {_ended(world.traffic.problem or 'waiting for the router')}",
        )
    if rollout.deadline_at is None:
        return _Story(
            Phase.PROGRESSING, Reason.INCONCLUSIVE,
            f"{where}: undecided after {world.spec.rollout.max_duration}; holding. Send more traffic or labels, "
            "widen the margin, or apply another spec.", stalled=True,
        )  # fmt: skip
    if step is not None and step.hold is not None:
        return _Story(Phase.PROGRESSING, Reason.HOLDING, f"{where}: hold for {step.hold}.")
    return _Story(Phase.PROGRESSING, Reason.STEPPING, f"{where}: {_gates(status)}")


def _gates(status: Status) -> str:
    """The open questions, from the numbers as last reported: so the message changes only with them."""
    gates = status.rollout.gates if status.rollout else ()
    open_ = [g.message for g in gates if g.verdict != Verdict.PASS and g.message]
    if open_:
        return " ".join(_ended(message) for message in open_)
    return "gates passed; seeing that the weight acts." if gates else "first measurements under way."


def _tell_resting(world: World, status: Status) -> _Story:
    impact, resolution, stable = _impact(status), world.resolution, status.stable
    if resolution.reason:
        phase = Phase.DEGRADED if stable else Phase.PENDING
        return _Story(phase, resolution.reason, f"{impact} {resolution.message}.".replace("..", "."), stalled=True)
    refused = next((r for r in status.rejected if r.spec_hash == resolution.spec_hash), None)
    if refused is not None and (stable is None or stable.spec_hash != resolution.spec_hash):
        word = "Rolled back" if any(
            h.revision == refused.revision and h.outcome == "RolledBack" for h in status.history[:1]
        ) else "Rejected"  # fmt: skip
        return _Story(
            Phase.DEGRADED, refused.reason or Reason.REJECTED,
            f"{impact} {word} {refused.revision}: {refused.reason}: {_ended(refused.message or 'no message')} "
            "Fix the spec or go back in Git; nothing is tried again until the spec changes.", stalled=True,
        )  # fmt: skip
    if s.is_suspended(world):
        return _Story(Phase.HEALTHY, Reason.SUSPENDED, "Suspended: spec.replicas is 0.")
    if stable is None or stable.spec_hash != resolution.spec_hash:
        return _tell_waiting(world, impact)
    if not stable.ready:
        return _Story(Phase.DEGRADED, Reason.NOT_SERVING, f"{impact} {_why_down(world)}")
    if stable.ready < (stable.replicas or 0):
        return _Story(
            Phase.PROGRESSING,
            Reason.LOADING,
            f"Serving {stable.revision}, {stable.ready} of {stable.replicas} pods ready. {_why_down(world)}",
        )
    return _Story(Phase.HEALTHY, Reason.HEALTHY, f"Serving {stable.revision} {stable.ready}/{stable.replicas}.")


def _tell_waiting(world: World, impact: str) -> _Story:
    if problem := s.strategy(world).problem:
        return _Story(
            Phase.DEGRADED,
            Reason.WEIGHT_UNREACHABLE,
            f"{impact} The new revision waits: {problem}.",
            stalled=True,
        )
    if s.is_paused(world):
        return _Story(Phase.PAUSED, Reason.PAUSED, f"{impact} A new revision waits: spec.paused is true.")
    if not s.traffic_rests(world):
        return _Story(Phase.PROGRESSING, Reason.PENDING, f"{impact} A new revision waits: {world.traffic.problem}.")
    return _Story(Phase.PENDING, Reason.PENDING, f"{impact} A rollout is about to begin.")


def _why_down(world: World) -> str:
    stable = world.stable
    if stable is None:
        return "Its record is gone."
    if stable.failure:
        return f"{stable.failure.reason}: {_ended(stable.failure.message)}"
    return f"Unschedulable: {_ended(stable.unschedulable)}" if stable.unschedulable else "Pods are starting."


# --- conditions ----------------------------------------------------------------------------------


def _conditions(world: World, status: Status, story: _Story, ready: int) -> tuple[Condition, ...]:
    conditions = world.status.conditions
    is_ready = story.phase == Phase.HEALTHY
    serving = ready > 0
    working = story.phase in (Phase.PROGRESSING, Phase.PENDING) and not story.stalled
    serves = Reason.SERVING if serving else Reason.NOT_SERVING
    facts: list[tuple[ConditionType, bool | None, str, str]] = [
        (ConditionType.READY, is_ready, story.reason, story.message),
        (ConditionType.AVAILABLE, serving, serves, _impact(status)),
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
