"""Moves: what each rule of the rollout machine does to the status. Pure; nothing here touches the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from penstock.api.analysis import AnalysisPhase
from penstock.api.base import Timestamp
from penstock.api.conditions import Reason
from penstock.api.rollout import OnInconclusive
from penstock.api.status import (
    HISTORY_LIMIT,
    REJECTED_LIMIT,
    AnalysisRef,
    HistoryEntry,
    LastHealthy,
    Outcome,
    Rejection,
    Retiring,
    RevisionStatus,
    RolloutStatus,
    Stage,
    Status,
    TrafficStatus,
)
from penstock.core import names
from penstock.core.situations import (
    canary_is_ready,
    canary_pods_wanted,
    is_first,
    is_hotfix,
    may_go,
    rollout_of,
    skips_the_steps,
    strategy,
    was_healthy_lately,
)
from penstock.core.world import World

AT_REST = TrafficStatus(desired_weight=0, applied_weight=0)


@dataclass(frozen=True, slots=True)
class Move:
    """A new status, and what to tell people about it."""

    status: Status
    reason: Reason
    message: str
    warning: bool = False
    ended: AnalysisPhase | None = None
    """How the analysis under way ends, if this move ends it."""
    silent: bool = field(default=False, kw_only=True)
    """Bookkeeping that is no news."""


Then: TypeAlias = Callable[[World], Move]


def _with(model: Any, **changes: Any) -> Any:
    return model.model_copy(update=changes)


def _rollout(world: World, **changes: Any) -> RolloutStatus:
    updated: RolloutStatus = _with(rollout_of(world), **changes)
    return updated


def _traffic(world: World, **changes: Any) -> TrafficStatus:
    before = world.status.traffic or AT_REST
    if changes.get("desired_weight", before.desired_weight) != before.desired_weight:
        changes["desired_since"] = Timestamp.at(world.now)
    updated: TrafficStatus = _with(before, **changes)
    return updated


def step_label(world: World, index: int) -> str:
    """`2/4`: the last one is 100 %."""
    total = len(strategy(world).steps) + 1
    return f"{min(index + 1, total)}/{total}"


# --- beginning -----------------------------------------------------------------------------------


def start(world: World) -> Move:
    """A rollout begins: its revision is rendered before anything runs."""
    now, wanted = world.now, world.resolution
    known = world.revisions.get(wanted.revision)
    attempt = world.analyses.get(wanted.revision, 0) + 1
    canary = RevisionStatus(
        revision=wanted.revision,
        spec_hash=wanted.spec_hash,
        uri=world.spec.model.uri,
        digest=known.digest if known else None,
    )
    reverting = not is_first(world) and was_healthy_lately(world, wanted.revision)
    rollout = RolloutStatus(
        id=names.rollout_id(wanted.revision, world.owner.uid, attempt),
        attempt=attempt,
        stage=Stage.RESOLVING,
        step_index=0,
        step=step_label(world, 0),
        steps_hash=strategy(world).hash,
        started_at=Timestamp.at(now),
        deadline_at=Timestamp.at(now + world.spec.rollout.max_duration.seconds()),
        reverting=reverting or None,
    )
    retiring = tuple(r for r in world.status.retiring if r.revision != wanted.revision)
    if not strategy(world).router.exact and not reverting:
        retiring = tuple(_with(r, until=Timestamp.at(now)) for r in retiring)
    status = _with(world.status, canary=canary, rollout=rollout, traffic=AT_REST, retiring=retiring)
    way = "straight back: it was healthy lately" if reverting else f"from {world.spec.model.uri}"
    return Move(status, Reason.RESOLVING, f"rollout {rollout.id} of revision {wanted.revision} begins, {way}")


def load(world: World) -> Move:
    """The record exists: pods may start."""
    status = _with(world.status, rollout=_rollout(world, stage=Stage.LOADING, started_at=Timestamp.at(world.now)))
    return Move(status, Reason.LOADING, f"loading {world.canary.uri if world.canary else ''}")


def expose(world: World) -> Move:
    """The canary is ready: the first step, or 100 % where there is nothing to step through."""
    if skips_the_steps(world):
        why = (
            "stable has no ready pod, so no step is waited for" if is_hotfix(world) else "ready; all traffic goes to it"
        )
        return _promoting(world, why)
    weight = strategy(world).weight_at(0)
    rollout = _rollout(
        world,
        stage=Stage.STEPPING,
        step_index=0,
        step=step_label(world, 0),
        exposed_at=Timestamp.at(world.now),
        step_started_at=None,
        analysis_ref=AnalysisRef(name=_analysis_name(world)),
    )
    status = _with(world.status, rollout=rollout, traffic=_traffic(world, desired_weight=weight))
    return Move(status, Reason.STEPPING, f"revision {_canary(world)} is ready: step {rollout.step}, {weight} %")


def _analysis_name(world: World) -> str:
    return names.analysis(world.owner.name, _canary(world), rollout_of(world).attempt or 1)


def _canary(world: World) -> str:
    return (world.status.canary.revision if world.status.canary else None) or ""


# --- stepping ------------------------------------------------------------------------------------


def apply_weight(world: World) -> Move:
    """The pods for a weight are there: the route may get it."""
    desired = world.status.traffic.desired_weight if world.status.traffic else 0
    status = _with(world.status, traffic=_traffic(world, applied_weight=desired))
    return Move(status, Reason.STEPPING, f"{desired} % of the traffic goes to revision {_canary(world)}")


def start_clock(world: World) -> Move:
    """The weight acts: the step's time counts from now on."""
    status = _with(world.status, rollout=_rollout(world, step_started_at=Timestamp.at(world.now)))
    return Move(status, Reason.STEPPING, "the weight acts", silent=True)


def advance(world: World) -> Move:
    """The next step, or all traffic after the last one."""
    plan, index = strategy(world), (rollout_of(world).step_index or 0) + 1
    if index >= len(plan.steps):
        return _promoting(world, "all steps done")
    step = plan.steps[index]
    label = step_label(world, index)
    rollout = _rollout(world, step_index=index, step=label, step_started_at=None)
    status = _with(world.status, rollout=rollout, traffic=_traffic(world, desired_weight=plan.weight_at(index)))
    what = f"{step.weight} %" if step.weight else f"hold for {step.hold}" if step.hold else "pause"
    return Move(status, Reason.STEPPING, f"step {label}: {what}")


def renumber(world: World) -> Move:
    """The steps were edited: go on at the first one whose weight is at least the current one."""
    plan = strategy(world)
    weight = (world.status.traffic.applied_weight if world.status.traffic else 0) or 0
    if not plan.steps:
        return _promoting(world, "no step is left after the edit")
    # Where all of them are smaller now, the last one: 100 % is for a canary that has proven itself.
    index = min(plan.index_for(weight), len(plan.steps) - 1)
    changes: Mapping[str, Any] = {
        "step_index": index,
        "step": step_label(world, index),
        "steps_hash": plan.hash,
    }
    rollout = _rollout(world, **changes, step_started_at=None)
    status = _with(world.status, rollout=rollout, traffic=_traffic(world, desired_weight=plan.weight_at(index)))
    return Move(status, Reason.STEPPING, f"steps were edited: going on at step {rollout.step}")


def _promoting(world: World, why: str) -> Move:
    plan = strategy(world)
    rollout = _rollout(
        world, stage=Stage.PROMOTING, step_index=len(plan.steps), step=step_label(world, len(plan.steps)),
        step_started_at=None, steps_hash=plan.hash,
    )  # fmt: skip
    status = _with(world.status, rollout=rollout, traffic=_traffic(world, desired_weight=100))
    return Move(status, Reason.PROMOTING, f"revision {_canary(world)} is scaled to full size for 100 %: {why}")


# --- ends ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _End:
    outcome: Outcome
    reason: str
    message: str
    gate: str | None = None


def _finish(world: World, end: _End, *, refuse: bool) -> Status:
    """The canary is out: no traffic, and its pods go a little later; not before the router has let go of them."""
    now, rollout, canary = Timestamp.at(world.now), rollout_of(world), world.status.canary
    entry = HistoryEntry(
        revision=_canary(world), digest=canary.digest if canary else None,
        outcome=end.outcome, reason=end.reason, at=now,
    )  # fmt: skip
    rejection = Rejection(
        spec_hash=canary.spec_hash if canary else None, revision=_canary(world), rollout_id=rollout.id,
        gate=end.gate, reason=end.reason, message=end.message, at=now,
    )  # fmt: skip
    until = Timestamp.at(world.now + world.settings.retire_seconds)
    # a first revision's route goes as a whole: no router is left to confirm anything
    was_routed = rollout.stage in (Stage.STEPPING, Stage.PROMOTING) and not is_first(world)
    retiring = Retiring(revision=_canary(world), until=until, routed=was_routed or None)
    others = tuple(r for r in world.status.retiring if r.revision != _canary(world))
    finished: Status = _with(
        world.status,
        canary=None,
        rollout=None,
        traffic=AT_REST,
        retiring=(*others, retiring)[-HISTORY_LIMIT:],
        history=(entry, *world.status.history)[:HISTORY_LIMIT],
        rejected=(rejection, *world.status.rejected)[:REJECTED_LIMIT] if refuse else world.status.rejected,
    )
    return finished


def promote(world: World) -> Move:
    """The canary serves everything: it is stable now, and the old pods stay warm for a while."""
    now, old, new = world.now, world.status.stable, world.status.canary
    retiring = tuple(r for r in world.status.retiring if new is None or r.revision != new.revision)
    if old is not None:
        kept = now + world.spec.rollout.scale_down_delay.seconds()
        retiring = (*retiring, Retiring(revision=old.revision, until=Timestamp.at(kept)))
    reason = Reason.REVERTED if rollout_of(world).reverting else Reason.PROMOTED
    entry = HistoryEntry(
        revision=_canary(world), digest=new.digest if new else None,
        outcome=Outcome.PROMOTED, reason=reason, at=Timestamp.at(now),
    )  # fmt: skip
    status = _with(
        world.status,
        stable=new,
        canary=None,
        rollout=None,
        traffic=AT_REST,
        last_healthy=LastHealthy(revision=_canary(world)),
        retiring=retiring[-HISTORY_LIMIT:],
        history=(entry, *world.status.history)[:HISTORY_LIMIT],
    )
    seen = world.measurement.judgements if world.measurement else ()
    proof = "".join(f"; {j.message}" for j in seen if j.applicable)
    word = "is back at 100 %" if rollout_of(world).reverting else "promoted to 100 %"
    return Move(status, reason, f"revision {_canary(world)} {word}{proof}", ended=AnalysisPhase.PASSED)


def cancel(world: World) -> Move:
    """The user went back to what is stable."""
    end = _End(Outcome.CANCELLED, Reason.CANCELLED, "the spec names the stable revision again")
    status = _finish(world, end, refuse=False)
    return Move(status, Reason.CANCELLED, f"revision {_canary(world)}: {end.message}", ended=AnalysisPhase.CANCELLED)


def supersede(world: World) -> Move:
    """The user asks for a third revision: the middle one leaves first."""
    end = _End(Outcome.SUPERSEDED, Reason.SUPERSEDED, "the spec names a newer revision")
    status = _finish(world, end, refuse=False)
    return Move(status, Reason.SUPERSEDED, f"revision {_canary(world)}: {end.message}", ended=AnalysisPhase.CANCELLED)


def roll_back_by_gate(world: World) -> Move:
    """The evidence is against the canary."""
    seen = world.measurement
    assert seen is not None  # noqa: S101 - the rule's `when` saw it
    return _roll_back(world, Reason.GATE_FAILED, seen.message, seen.gate)


def roll_back_broken(world: World) -> Move:
    """The canary's pods are down."""
    failure = world.canary.failure if world.canary else None
    assert failure is not None  # noqa: S101 - the rule's `when` saw it
    return _roll_back(world, failure.reason, f"no pod of it serves any more: {failure.message}")


def _roll_back(world: World, reason: str, message: str, gate: str | None = None) -> Move:
    status = _finish(world, _End(Outcome.ROLLED_BACK, reason, message, gate), refuse=True)
    stable = world.status.stable.revision if world.status.stable else None
    back = f"all traffic goes to {stable} again" if stable else "no revision is left to serve"
    told = f"revision {_canary(world)} is rolled back, {back}: {message.rstrip('.')}. Fix the spec or go back in Git."
    return Move(status, Reason.ROLLED_BACK, told, warning=True, ended=AnalysisPhase.FAILED)


def _reject(world: World, reason: str, message: str) -> Move:
    status = _finish(world, _End(Outcome.REJECTED, reason, message), refuse=True)
    # the first revision is routed from its first ready pod on, since nobody else could answer
    what = "is refused, and nothing is left to serve" if is_first(world) else "never got a request"
    told = f"revision {_canary(world)} {what}: {reason}: {message}"
    return Move(status, Reason.REJECTED, told, warning=True, ended=AnalysisPhase.FAILED)


def reject_unloadable(world: World) -> Move:
    """Its model cannot be fetched or loaded."""
    failure = world.canary.failure if world.canary else None
    assert failure is not None  # noqa: S101 - the rule's `when` saw it
    return _reject(world, failure.reason, failure.message)


def reject_changed_source(world: World) -> Move:
    """Its pods saw different bytes."""
    seen = sorted({p.digest for p in world.canary.pods if p.digest}) if world.canary else []
    message = (
        f"pods of one revision loaded different bytes ({', '.join(seen)}); "
        "publish each version of a model under a uri of its own"
    )
    served = world.status.traffic is not None and bool(world.status.traffic.applied_weight)
    return (_roll_back if served else _reject)(world, Reason.SOURCE_CHANGED, message)


def reject_late(world: World) -> Move:
    """It did not become ready in time; the cluster's own words say why."""
    deadline = world.spec.rollout.progress_deadline
    if canary_is_ready(world):
        told = f"its pods are ready, but for {deadline} {world.schema_problem or 'its schema is not known'}"
    else:
        ready, cause = world.canary.ready if world.canary else 0, world.canary.trouble if world.canary else ""
        some = f"only {ready} of {canary_pods_wanted(world)} pods became ready" if ready else "no pod became ready"
        told = f"not ready within {deadline}: {cause or some}"
    return _reject(world, Reason.PROGRESS_DEADLINE_EXCEEDED, told)


def reject_schema(world: World) -> Move:
    """Its inputs or outputs would break the clients of stable."""
    return _reject(world, Reason.SCHEMA_INCOMPATIBLE, str(world.schema))


def decide_late(world: World) -> Move:
    """`maxDuration` is over without a decision: do what the user said."""
    match world.spec.rollout.on_inconclusive:
        case OnInconclusive.ROLLBACK:
            move = _roll_back(world, Reason.INCONCLUSIVE, f"undecided after {world.spec.rollout.max_duration}")
            return replace(move, ended=AnalysisPhase.INCONCLUSIVE)
        case OnInconclusive.PROMOTE:
            return _promoting(
                world, f"undecided after {world.spec.rollout.max_duration}, and onInconclusive is Promote"
            )
        case _:
            status = _with(world.status, rollout=_rollout(world, deadline_at=None))
            why = f"undecided after {world.spec.rollout.max_duration}: holding the weight until a human decides"
            return Move(status, Reason.INCONCLUSIVE, why, warning=True)


def retire(world: World) -> Move:
    """A revision's time is over: its pods may go."""
    left = tuple(r for r in world.status.retiring if not may_go(world, r))
    gone = ", ".join(str(r.revision) for r in world.status.retiring if r not in left)
    return Move(_with(world.status, retiring=left), Reason.HEALTHY, f"pods of {gone} go", silent=True)
