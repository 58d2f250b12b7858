"""Weights within reach: what pods and router can make of the step's weight, asked all through a rollout.

Replicas, router and steps may change while a weight acts. A share that cannot be made any more would be larger than the
one asked for, or go to a third revision: it is taken back until it can be made, and everything measured is kept.
"""

from __future__ import annotations

from penstock.api.base import Timestamp
from penstock.api.conditions import Reason
from penstock.api.status import Retiring
from penstock.core import situations as s
from penstock.core.moves import Move
from penstock.core.world import World


def weight_is_out_of_reach(world: World) -> bool:
    """The weight that acts cannot be made any more. Where stable serves nobody, the canary's share is all there is."""
    traffic = world.status.traffic
    if traffic is None or s.is_suspended(world) or s.stable_is_down(world):
        return False
    return not s.can_be_made(world, traffic.applied_weight or 0)


def a_third_is_in_the_way(world: World) -> bool:
    """A retiring revision has time left, and the Service over both others would select its pods."""
    return (
        not s.is_alone_with_stable(world)
        and not s.skips_the_steps(world)
        and any(r.until is not None and r.until.unix() > world.now for r in world.status.retiring)
    )


def withdraw(world: World) -> Move:
    """All traffic to stable; the step's weight is asked for still, and its clock starts anew when it acts again."""
    applied = (world.status.traffic.applied_weight if world.status.traffic else 0) or 0
    canary, now = world.status.canary.revision if world.status.canary else None, Timestamp.at(world.now)
    status = clear_the_way(world).status
    status = status.model_copy(
        update={
            "traffic": status.traffic.model_copy(update={"applied_weight": 0, "desired_since": now})
            if status.traffic
            else None,
            "rollout": s.rollout_of(world).model_copy(update={"step_started_at": None}),
        }
    )
    told = f"revision {canary} gets no requests for now instead of its {applied} %: {why_not(world, applied)}"
    return Move(status, Reason.WEIGHT_UNREACHABLE, told, warning=True)


def clear_the_way(world: World) -> Move:
    """Pods that a Service over the whole model would select go now, not after their delay."""
    retiring = world.status.retiring
    if not s.strategy(world).router.exact:
        retiring = tuple(_now(world, r) for r in retiring)
    status = world.status.model_copy(update={"retiring": retiring})
    return Move(status, Reason.STEPPING, "no third revision may be among the pods of the Service", silent=True)


def _now(world: World, retiring: Retiring) -> Retiring:
    return retiring.model_copy(update={"until": Timestamp.at(world.now)})


def why_not(world: World, weight: int) -> str:
    """Why a weight cannot be made and what would help, for people; empty if it can."""
    if s.can_be_made(world, weight):
        return ""
    if problem := s.strategy(world).problem_with(weight):
        return problem
    others = ", ".join(s.thirds(world))
    return f"pods of {others} must go first, else router Replicas would send them requests, too"
