"""Situations: the predicates of the rollout machine, each a sentence about one World."""

from __future__ import annotations

from penstock.api.conditions import Reason
from penstock.api.rollout import OnSchemaChange
from penstock.api.status import Outcome, Retiring, RolloutStatus, Stage, Verdict
from penstock.core.schema import Compatibility
from penstock.core.strategy import Strategy, strategy_of
from penstock.core.world import World

MIN_FRESH_REQUESTS = 20
"""Requests the canary must have answered at a weight before the next one: proof that the weight acts."""


def strategy(world: World) -> Strategy:
    """The steps as they are now."""
    return strategy_of(world.spec)


def rollout_of(world: World) -> RolloutStatus:
    """The rollout under way; only to be asked where there is one."""
    assert world.status.rollout is not None  # noqa: S101 - the rules' `during` guarantees it
    return world.status.rollout


def is_rolling(world: World) -> bool:
    """A canary is under way."""
    return world.status.rollout is not None and world.status.canary is not None


def is_first(world: World) -> bool:
    """Nothing was ever trusted: there is nothing to compare with and nothing to go back to."""
    return world.status.stable is None


def nothing_is_to_serve(world: World) -> bool:
    """A first revision was refused or given up: no revision may get requests. A status that knows nothing says no."""
    status = world.status
    return status.stable is None and status.canary is None and bool(status.history)


def status_was_lost(world: World) -> bool:
    """The status knows nothing though revisions exist: more than a first deployment that was cut short."""
    status = world.status
    if status.stable or status.canary or status.history or status.rejected:
        return False
    return len(world.revisions) > 1 or any(r.outcome for r in world.revisions.values())


def spec_is_unreadable(world: World) -> bool:
    """A newer version's fields, say: `world.spec` only stands in for what the user wrote."""
    return world.resolution.reason == Reason.INVALID_SPEC


def names_are_taken(world: World) -> bool:
    """Somebody else's object has one of our names."""
    return world.conflict is not None


def wanted(world: World) -> str | None:
    """The specHash that the user asks for; None while the spec cannot become pods."""
    return None if world.resolution.reason else world.resolution.spec_hash


def spec_names_stable_again(world: World) -> bool:
    """The user went back while a rollout was under way."""
    return world.status.stable is not None and wanted(world) == world.status.stable.spec_hash


def spec_names_a_third(world: World) -> bool:
    """The user asks for yet another revision."""
    hash_ = wanted(world)
    return hash_ is not None and world.status.canary is not None and hash_ != world.status.canary.spec_hash


def is_paused(world: World) -> bool:
    """The user holds everything."""
    return world.spec.paused


def is_suspended(world: World) -> bool:
    """No pods are wanted: nothing can be loaded, shown or measured."""
    return world.spec.replicas == 0


def is_at_a_pause(world: World) -> bool:
    """The current step waits for a human to take it out."""
    rollout, steps = rollout_of(world), strategy(world).steps
    index = rollout.step_index or 0
    return rollout.stage == Stage.STEPPING and index < len(steps) and steps[index].pause is not None


def is_held(world: World) -> bool:
    """A human holds the rollout: by `paused`, by no replicas, or at a pause step."""
    return is_paused(world) or is_suspended(world) or is_at_a_pause(world)


def hold_begins(world: World) -> bool:
    """Held, and not yet noted."""
    return is_held(world) and rollout_of(world).held_since is None


def hold_is_over(world: World) -> bool:
    """Noted as held, and no longer."""
    return rollout_of(world).held_since is not None and not is_held(world)


def has_a_way_back(world: World) -> bool:
    """There is a stable revision to roll back to."""
    return not is_first(world)


def stable_is_down(world: World) -> bool:
    """The rollback target serves nothing, while the canary does."""
    stable, canary = world.stable, world.canary
    return stable is not None and stable.ready == 0 and canary is not None and canary.ready > 0


def canary_is_broken(world: World) -> bool:
    """Seen without any metric: no pod of an exposed canary serves, and one of them says why."""
    canary = world.canary
    return canary is not None and canary.ready == 0 and canary.failure is not None


def a_gate_failed(world: World) -> bool:
    """The evidence says that the canary is worse."""
    return world.measurement is not None and world.measurement.verdict == Verdict.FAIL


def gates_passed(world: World) -> bool:
    """Every required gate has proven its point."""
    return world.measurement is not None and world.measurement.verdict == Verdict.PASS


def is_blind(world: World) -> bool:
    """Nothing can be measured."""
    return world.measurement is not None and world.measurement.blind


def went_blind(world: World) -> bool:
    """Blind, and not yet noted. While a human holds the rollout nobody looks, and its clocks stand still anyway."""
    rollout = rollout_of(world)
    return is_blind(world) and rollout.blind_since is None and rollout.held_since is None


def sees_again(world: World) -> bool:
    """Noted as blind, and no longer."""
    return rollout_of(world).blind_since is not None and world.measurement is not None and not is_blind(world)


def cannot_load(world: World) -> bool:
    """The canary's model is refused for a reason that time does not heal."""
    canary = world.canary
    return canary is not None and canary.failure is not None and canary.failure.final and canary.ready == 0


def digests_differ(world: World) -> bool:
    """Two pods of one revision saw different bytes."""
    canary = world.canary
    if canary is None:
        return False
    seen = {p.digest for p in canary.pods if p.digest}
    return len(seen | ({canary.digest} if canary.digest else set())) > 1


def takes_too_long(world: World) -> bool:
    """The progress deadline is over and the canary is not ready, or has been for as long and cannot be compared."""
    rollout = rollout_of(world)
    if is_held(world) or rollout.held_since is not None:
        return False
    began = rollout.started_at.unix() if rollout.started_at else world.now
    if canary_is_ready(world):
        if schema_is_known(world):
            return False
        began = max([began, *(p.ready_since for p in (world.canary.pods if world.canary else ()) if p.ready_since)])
    return world.now >= began + world.spec.rollout.progress_deadline.seconds()


def pods_are_overdue(world: World) -> bool:
    """The pods that the weight asked for needs were not there within the progress deadline."""
    rollout, traffic = rollout_of(world), world.status.traffic
    if traffic is None or traffic.desired_since is None or canary_is_ready(world):
        return False
    if is_held(world) or rollout.held_since is not None:
        return False
    waits = traffic.applied_weight != traffic.desired_weight or rollout.stage == Stage.PROMOTING
    return waits and world.now >= traffic.desired_since.unix() + world.spec.rollout.progress_deadline.seconds()


def is_rendered(world: World) -> bool:
    """The revision's record exists."""
    return world.canary is not None


def canary_pods_wanted(world: World) -> int:
    """Pods the canary needs at the stage it is in."""
    rollout, plan = rollout_of(world), strategy(world)
    if is_first(world) or rollout.reverting or rollout.stage == Stage.PROMOTING or not plan.steps:
        return world.spec.replicas
    return plan.canary_replicas_at(rollout.step_index or 0)


def canary_is_ready(world: World) -> bool:
    """All pods that the stage needs serve."""
    return world.canary is not None and not is_suspended(world) and world.canary.ready >= canary_pods_wanted(world)


def schema_breaks_clients(world: World) -> bool:
    """Requests that stable takes would fail on the canary."""
    return (
        world.schema is not None
        and world.schema.compatibility == Compatibility.BREAKING
        and world.spec.rollout.on_schema_change == OnSchemaChange.BLOCK
    )


def schema_is_known(world: World) -> bool:
    """Both revisions told their inputs and outputs, or nobody has to."""
    return skips_the_comparison(world) or world.schema is not None


def skips_the_comparison(world: World) -> bool:
    """Nothing to compare with, proven lately, or urgent: stable serves nobody and this revision would."""
    return is_first(world) or bool(rollout_of(world).reverting) or is_hotfix(world)


def is_hotfix(world: World) -> bool:
    """Stable is proven to be down: whoever is ready is better than that. A stable that merely starts is waited for."""
    stable = world.stable
    if stable is None or stable.ready or is_suspended(world):
        return False
    if stable.failure is not None or stable.unschedulable:
        return True
    patience = world.spec.rollout.progress_deadline.seconds() / 2
    since = [pod.unready_since for pod in stable.pods if not pod.deleting]
    return bool(since) and all(at is not None and world.now - at >= patience for at in since)


def is_alone_with_stable(world: World) -> bool:
    """No third revision has pods that a blended Service would send requests to."""
    return strategy(world).router.exact or not thirds(world)


def thirds(world: World) -> list[str]:
    """Revisions that have pods and are neither stable nor canary."""
    status = world.status
    ours = {r.revision for r in (status.stable, status.canary) if r}
    return sorted(r.name for r in world.revisions.values() if r.pods and r.name not in ours)


def can_be_made(world: World, weight: int) -> bool:
    """The router can give the canary this share and no more, and stable all the rest, with the pods as wanted."""
    return weight in (0, 100) or (not strategy(world).problem_with(weight) and is_alone_with_stable(world))


def skips_the_steps(world: World) -> bool:
    """Straight to 100 %: nothing to compare with, proven lately, urgent, or asked for by an empty list."""
    return skips_the_comparison(world) or not strategy(world).steps


def was_healthy_lately(world: World, revision: str) -> bool:
    """The revision was stable within `rollbackWindow`."""
    replaced_at = world.now
    for entry in world.status.history:
        if entry.outcome != Outcome.PROMOTED or entry.at is None:
            continue
        if entry.revision == revision:
            return world.now - replaced_at <= world.spec.rollout.rollback_window.seconds()
        replaced_at = entry.at.unix()
    return False


def weight_is_due(world: World) -> bool:
    """The step's weight is not applied yet, its pods are there, and stable counts labels of the same time."""
    return _pods_for_the_weight_are_there(world) and not awaits_the_cohort(world)


def stable_compares_labels(world: World) -> bool:
    """Pods of stable count labels for this rollout: the canary has weight, or gets its first now.

    No earlier, such as while it loads, holds at 0 % or is paused: stable's labels would be riper than the canary's.
    """
    rollout, traffic = world.status.rollout, world.status.traffic
    if rollout is None or traffic is None:
        return False
    if traffic.applied_weight:
        return True
    return rollout.stage == Stage.STEPPING and not is_paused(world) and _pods_for_the_weight_are_there(world)


def awaits_the_cohort(world: World) -> bool:
    """The first weight waits until each pod of stable that serves was told; others answer nobody."""
    traffic, stable = world.status.traffic, world.stable
    if stable is None or traffic is None or traffic.applied_weight or not stable_compares_labels(world):
        return False
    return any(pod.ready and pod.cohort != rollout_of(world).id for pod in stable.pods)


def _pods_for_the_weight_are_there(world: World) -> bool:
    traffic = world.status.traffic
    if traffic is None or traffic.applied_weight == traffic.desired_weight:
        return False
    return canary_is_ready(world) and can_be_made(world, traffic.desired_weight or 0)


def weight_acts(world: World) -> bool:
    """The weight is applied and the router has taken it over."""
    traffic = world.status.traffic
    return traffic is not None and traffic.applied_weight == traffic.desired_weight and world.traffic.confirmed


def step_took_effect(world: World) -> bool:
    """The weight acts and the step's clock does not run yet."""
    return rollout_of(world).step_started_at is None and weight_acts(world)


def steps_were_edited(world: World) -> bool:
    """The user changed the steps of the rollout under way."""
    return rollout_of(world).steps_hash != strategy(world).hash


def step_is_done(world: World) -> bool:
    """The current step has nothing left to wait for."""
    rollout, plan = rollout_of(world), strategy(world)
    if rollout.step_started_at is None:
        return False
    index, since = rollout.step_index or 0, world.now - rollout.step_started_at.unix()
    if index >= len(plan.steps):
        return True
    step = plan.steps[index]
    if step.pause is not None:
        return False
    if step.hold is not None:
        return since >= step.hold.seconds()
    return since >= world.spec.rollout.analysis.block.seconds() and gates_passed(world) and has_fresh_requests(world)


def has_fresh_requests(world: World) -> bool:
    """The canary answered requests at this very weight, in the share that was asked for."""
    seen = world.measurement
    return seen is not None and seen.fresh_requests >= MIN_FRESH_REQUESTS and seen.share_is_right


def is_overdue(world: World) -> bool:
    """`maxDuration` is over; clocks stand still while blind or held."""
    rollout = rollout_of(world)
    if rollout.deadline_at is None or rollout.blind_since is not None or rollout.held_since is not None:
        return False
    return world.now >= rollout.deadline_at.unix()


def all_traffic_moved(world: World) -> bool:
    """The canary serves everything, confirmed by the router."""
    traffic = world.status.traffic
    return traffic is not None and traffic.applied_weight == 100 and world.traffic.confirmed


def asks_for_something_new(world: World) -> bool:
    """The spec names a revision that is neither trusted nor refused, and its steps can be made."""
    hash_ = wanted(world)
    if hash_ is None or (world.status.stable and world.status.stable.spec_hash == hash_):
        return False
    return not is_rejected(world) and not is_suspended(world) and steps_can_be_made(world)


def steps_can_be_made(world: World) -> bool:
    """The router can make every weight asked for, or no weight is needed this time."""
    if is_first(world) or not strategy(world).problem:
        return True
    return was_healthy_lately(world, world.resolution.revision)


def is_rejected(world: World) -> bool:
    """The spec names a revision that was tried and refused."""
    return any(r.spec_hash == world.resolution.spec_hash for r in world.status.rejected)


def traffic_rests(world: World) -> bool:
    """All requests go to stable, confirmed; or nothing serves yet."""
    return is_first(world) or world.traffic.confirmed


def something_retires(world: World) -> bool:
    """A revision's time has come."""
    return any(may_go(world, retiring) for retiring in world.status.retiring)


def may_go(world: World, retiring: Retiring) -> bool:
    """Its time is over, and no router may still send it requests."""
    is_over = retiring.until is None or retiring.until.unix() <= world.now
    return is_over and (not retiring.routed or world.traffic.confirmed)
