"""The story of a ModelDeployment in one message: user impact, cause with numbers, what to do. And its phase."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock.api.conditions import Reason
from penstock.api.status import Phase, Stage, Status, Verdict
from penstock.core import reach, recovery
from penstock.core import situations as s
from penstock.core.world import Revision, World


@dataclass(frozen=True, slots=True)
class Story:
    """One telling of the state: the phase, why, and what to say."""

    phase: Phase
    reason: str
    message: str
    stalled: bool = False


def _ended(text: str) -> str:
    """With a full stop, unless it ends already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _sentence(text: str) -> str:
    """A clause as a sentence: only its first letter changes, since names of fields and kinds must not."""
    return _ended(text[:1].upper() + text[1:])


def impact_of(world: World, status: Status) -> str:
    """What users get, first of all."""
    stable, canary = status.stable, status.canary
    weight = (status.traffic.applied_weight if status.traffic else 0) or 0
    if s.status_was_lost(world):
        shares = ", ".join(f"{name} {share} %" for name, share in sorted(recovery.routed(world).items()))
        return f"Traffic stays as it is: {shares or 'none'}."
    if s.is_suspended(world) and not (stable and stable.ready):
        return "Nobody is served: spec.replicas is 0, as asked."
    if stable is None:
        return "Nothing serves yet." if not canary or not canary.ready else f"Serving {canary.revision}."
    if not stable.ready:
        rest = f"; only the {weight} % for {canary.revision} are" if canary and canary.ready and weight else ""
        return f"Requests are not answered{rest}: stable {stable.revision} has 0 of {stable.replicas} pods ready."
    share = f", {weight} % to {canary.revision}" if canary and weight else ""
    serving = f"Serving {stable.revision} {stable.ready}/{stable.replicas}{share}"
    lost = "; requests through a gateway may not arrive" if world.traffic.broken else ""
    if stable.ready < (stable.replicas or 0):
        return f"{serving}, with less capacity than asked for{lost}."
    return f"{serving}{lost}." if share or lost else f"{serving}, no user impact."


def tell(world: World, status: Status) -> Story:
    """What to say of this status: what stops everything first, then the rollout under way, then rest."""
    if s.spec_is_unreadable(world):
        return Story(
            Phase.DEGRADED if status.stable else Phase.PENDING, Reason.INVALID_SPEC,
            f"{impact_of(world, status)} This version of the operator cannot read the spec "
            f"({world.resolution.message}), so nothing is changed. Upgrade Penstock, or take that field out.",
            stalled=True,
        )  # fmt: skip
    if world.conflict is not None:
        return Story(
            Phase.DEGRADED, Reason.NAME_CONFLICT,
            f"{impact_of(world, status)} {world.conflict} exists and belongs to somebody else, so nothing is touched. "
            "Rename this ModelDeployment or delete that object.", stalled=True,
        )  # fmt: skip
    if s.status_was_lost(world):
        return Story(
            Phase.DEGRADED, Reason.RECOVERY_AMBIGUOUS,
            f"{impact_of(world, status)} The status was lost, and records and route contradict each other. Decide "
            "which revision is to serve: apply its spec, then delete the other's ControllerRevision and Deployment.",
            stalled=True,
        )  # fmt: skip
    if status.rollout is not None and status.canary is not None:
        return _with_trouble(world, _tell_rolling(world, status))
    return _tell_resting(world, status)


def _with_trouble(world: World, story: Story) -> Story:
    """What keeps pods of the canary from serving belongs to every story of a rollout, at whatever stage."""
    canary = world.canary
    if canary is None or not canary.trouble or canary.trouble in story.message:
        return story
    if s.is_suspended(world) or s.canary_is_ready(world):
        return story
    pods = f"{canary.name} has {canary.ready} of {s.canary_pods_wanted(world)} pods ready"
    return replace(story, message=f"{story.message} {pods}. {_ended(canary.trouble)}")


def _tell_overdue(world: World, status: Status, impact: str) -> Story:
    """The rollout waits for pods for longer than it may. The canary was proven so far, so nothing is taken back."""
    traffic, canary = status.traffic, world.canary
    desired, applied = (traffic.desired_weight, traffic.applied_weight) if traffic else (0, 0)
    have = f"{canary.ready if canary else 0} of {s.canary_pods_wanted(world)}"
    cause = _ended(canary.trouble) if canary and canary.trouble else "No pod says why."
    return Story(
        Phase.DEGRADED, Reason.PROGRESS_DEADLINE_EXCEEDED,
        f"{impact} {_name(canary, status)} waits for pods for {desired} %: {have} are ready after "
        f"{world.spec.rollout.progress_deadline}. {cause} The weight stays at {applied} %. Make room for them, or go "
        "back in Git.", stalled=True,
    )  # fmt: skip


def _tell_rolling(world: World, status: Status) -> Story:
    assert status.rollout is not None  # noqa: S101
    rollout, impact = status.rollout, impact_of(world, status)
    canary = world.revisions.get((status.canary.revision if status.canary else None) or "")
    if world.resolution.reason:
        impact = f"{impact} The newest spec is not used ({world.resolution.reason}: {world.resolution.message})."
    if s.is_paused(world):
        return Story(Phase.PAUSED, Reason.PAUSED, f"{impact} Paused at step {rollout.step} by spec.paused.")
    if s.is_suspended(world):
        return Story(Phase.PAUSED, Reason.SUSPENDED, f"{impact} spec.replicas is 0: the rollout waits.")
    if s.pods_are_overdue(world) and not s.a_gate_failed(world):
        return _tell_overdue(world, status, impact)
    match rollout.stage:
        case Stage.RESOLVING:
            return Story(Phase.PROGRESSING, Reason.RESOLVING, f"{impact} Rendering revision {_name(canary, status)}.")
        case Stage.LOADING:
            return Story(Phase.PROGRESSING, Reason.LOADING, f"{impact} {_loading(world, canary, status)}")
        case Stage.PROMOTING:
            told = f"{impact} Moving all traffic to {_name(canary, status)}."
            if world.traffic.confirmed:
                return Story(Phase.PROGRESSING, Reason.PROMOTING, told)
            return _tell_unconfirmed(world, told, Reason.PROMOTING)
        case _:
            return _tell_stepping(world, status, impact)


def _name(canary: Revision | None, status: Status) -> str:
    return canary.name if canary else str(status.canary.revision if status.canary else "")


def _loading(world: World, canary: Revision | None, status: Status) -> str:
    if canary is None:
        return f"Starting {_name(canary, status)}."
    trouble = ""
    if canary.trouble:
        trouble = f" {_ended(canary.trouble)}"
    elif world.schema_problem and s.canary_is_ready(world):
        trouble = f" {world.schema_problem}"
    elif s.canary_is_ready(world) and not world.traffic.confirmed and world.traffic.problem:
        trouble = f" {_sentence(world.traffic.problem)}"
    return f"Loading {canary.name}: {canary.ready} of {s.canary_pods_wanted(world)} pods ready.{trouble}"


def _tell_stepping(world: World, status: Status, impact: str) -> Story:
    rollout, seen = s.rollout_of(world), world.measurement
    plan, index = s.strategy(world), rollout.step_index or 0
    where = f"{impact} Step {rollout.step}"
    step = plan.steps[index] if index < len(plan.steps) else None
    if seen is not None and s.a_gate_failed(world) and s.stable_is_down(world):
        return Story(
            Phase.DEGRADED, Reason.STABLE_BROKEN,
            f"{impact} The canary fails its gates ({seen.message}), but stable has no ready pod to go back to: the "
            "weight stays. Repair stable's pods or apply a spec that works.", stalled=True,
        )  # fmt: skip
    desired = (status.traffic.desired_weight if status.traffic else 0) or 0
    if problem := reach.why_not(world, desired):
        human = bool(plan.problem_with(desired))
        return Story(
            Phase.DEGRADED if human else Phase.PROGRESSING, Reason.WEIGHT_UNREACHABLE,
            f"{where} waits for {desired} %: {_ended(problem)} What was measured is kept.", stalled=human,
        )  # fmt: skip
    if rollout.blind_since is not None:
        cause = seen.message if seen else "no samples. The weight stays as it is"
        return Story(
            Phase.PROGRESSING,
            Reason.CANNOT_MEASURE,
            f"{where}: CannotMeasure since {rollout.blind_since}: {_ended(cause)}",
        )
    if step is not None and step.pause is not None:
        return Story(
            Phase.PAUSED,
            Reason.PAUSE_STEP,
            f"{where}: pause. Take the step out of spec.rollout.steps to go on.",
        )
    if not world.traffic.confirmed:
        return _tell_unconfirmed(world, f"{where}.")
    if rollout.deadline_at is None:
        return Story(
            Phase.PROGRESSING, Reason.INCONCLUSIVE,
            f"{where}: undecided after {world.spec.rollout.max_duration}; holding. Send more traffic or labels, "
            "widen the margin, or apply another spec.", stalled=True,
        )  # fmt: skip
    if step is not None and step.hold is not None:
        return Story(Phase.PROGRESSING, Reason.HOLDING, f"{where}: hold for {step.hold}.")
    return Story(Phase.PROGRESSING, Reason.STEPPING, f"{where}: {_gates(status)}")


def _tell_unconfirmed(world: World, told: str, reason: str = Reason.ROUTE_NOT_ACCEPTED) -> Story:
    """The router does not do as the route says. That takes a moment each time; only a refusal needs a human."""
    problem = _sentence(world.traffic.problem or "waiting for the router")
    if world.traffic.refused:
        todo = "Correct spec.traffic or the Gateway."
        return Story(Phase.DEGRADED, Reason.ROUTE_NOT_ACCEPTED, f"{told} {problem} {todo}", stalled=True)
    return Story(Phase.PROGRESSING, reason, f"{told} {problem}")


def _gates(status: Status) -> str:
    """The open questions, from the numbers as last reported: so the message changes only with them."""
    gates = status.rollout.gates if status.rollout else ()
    open_ = [g.message for g in gates if g.verdict != Verdict.PASS and g.message]
    if open_:
        return " ".join(_ended(message) for message in open_)
    return "gates passed; seeing that the weight acts." if gates else "first measurements under way."


def _tell_resting(world: World, status: Status) -> Story:
    impact, resolution, stable = impact_of(world, status), world.resolution, status.stable
    if resolution.reason:
        phase = Phase.DEGRADED if stable else Phase.PENDING
        return Story(phase, resolution.reason, f"{impact} {resolution.message}.".replace("..", "."), stalled=True)
    refused = next((r for r in status.rejected if r.spec_hash == resolution.spec_hash), None)
    if refused is not None and (stable is None or stable.spec_hash != resolution.spec_hash):
        word = "Rolled back" if any(
            h.revision == refused.revision and h.outcome == "RolledBack" for h in status.history[:1]
        ) else "Rejected"  # fmt: skip
        return Story(
            Phase.DEGRADED, refused.reason or Reason.REJECTED,
            f"{impact} {word} {refused.revision}: {refused.reason}: {_ended(refused.message or 'no message')} "
            "Fix the spec or go back in Git; nothing is tried again until the spec changes.", stalled=True,
        )  # fmt: skip
    if s.is_suspended(world):
        return Story(Phase.HEALTHY, Reason.SUSPENDED, f"{impact} Set it to 1 or more to serve again.")
    if stable is None or stable.spec_hash != resolution.spec_hash:
        return _tell_waiting(world, impact)
    if not stable.ready:
        return Story(Phase.DEGRADED, Reason.NOT_SERVING, f"{impact} {_why_down(world)}")
    if not world.traffic.confirmed:
        plain = f"Serving {stable.revision} {stable.ready}/{stable.replicas}."
        return _tell_unconfirmed(world, impact if world.traffic.broken else plain)
    if stable.ready < (stable.replicas or 0):
        return Story(
            Phase.PROGRESSING,
            Reason.LOADING,
            f"Serving {stable.revision}, {stable.ready} of {stable.replicas} pods ready. {_why_down(world)}",
        )
    return Story(Phase.HEALTHY, Reason.HEALTHY, f"Serving {stable.revision} {stable.ready}/{stable.replicas}.")


def _tell_waiting(world: World, impact: str) -> Story:
    if problem := s.strategy(world).problem:
        return Story(
            Phase.DEGRADED,
            Reason.WEIGHT_UNREACHABLE,
            f"{impact} The new revision waits: {problem}.",
            stalled=True,
        )
    if s.is_paused(world):
        return Story(Phase.PAUSED, Reason.PAUSED, f"{impact} A new revision waits: spec.paused is true.")
    if not s.traffic_rests(world):
        return Story(Phase.PROGRESSING, Reason.PENDING, f"{impact} A new revision waits: {world.traffic.problem}.")
    return Story(Phase.PENDING, Reason.PENDING, f"{impact} A rollout is about to begin.")


def _why_down(world: World) -> str:
    stable = world.stable
    if stable is None:
        return "Its record is gone."
    return _ended(stable.trouble) if stable.trouble else "Pods are starting."
