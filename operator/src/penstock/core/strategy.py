"""What a spec's steps come to, given the router and the number of replicas."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from penstock.api.modeldeployment import Spec
from penstock.api.rollout import Step
from penstock.core.routing import Router, router_for

DEFAULT_WEIGHTS = (5, 25, 50)


@dataclass(frozen=True, slots=True)
class Strategy:
    """The steps of a rollout, all of which can be made."""

    steps: tuple[Step, ...]
    router: Router
    replicas: int
    problem: str = ""
    """Why the steps given cannot be made, for people."""

    def weight_at(self, index: int) -> int:
        """Percent for the canary at a step: its own, or that of the last weight before it."""
        if index >= len(self.steps):
            return 100
        given = [s.weight for s in self.steps[: index + 1] if s.weight]
        return given[-1] if given else 0

    def canary_replicas_at(self, index: int) -> int:
        """Pods the canary needs at a step; at least one, since it must load somewhere."""
        return max(1, self.router.canary_replicas(self.weight_at(index), self.replicas)) if self.replicas else 0

    def problem_with(self, weight: int) -> str:
        """Why a weight cannot be made with these replicas, and what would help; empty if it can."""
        if not self.replicas or self.router.achievable(weight, self.replicas) > 0:
            return ""
        return _unreachable([weight], self.replicas)

    def index_for(self, weight: int) -> int:
        """The first step whose weight is at least `weight`: where a rollout goes on after its steps were edited."""
        return next((i for i in range(len(self.steps)) if self.weight_at(i) >= weight), len(self.steps))

    @property
    def hash(self) -> str:
        """Changes when the steps do."""
        text = json.dumps([s.to_wire() for s in self.steps], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def strategy_of(spec: Spec) -> Strategy:
    """The strategy of a spec. Default weights that the router cannot make are left out; given ones are a problem."""
    router = router_for(spec.traffic)
    given = spec.rollout.steps
    if given is None:
        possible = [w for w in DEFAULT_WEIGHTS if router.achievable(w, spec.replicas) > 0]
        return Strategy(tuple(Step(weight=w) for w in possible), router, spec.replicas)
    impossible = [s.weight for s in given if s.weight and not router.achievable(s.weight, spec.replicas)]
    problem = _unreachable(impossible, spec.replicas) if impossible and spec.replicas else ""
    return Strategy(tuple(given), router, spec.replicas, problem)


def _unreachable(weights: list[int], replicas: int) -> str:
    smallest = -(-100 // (replicas + 1))
    needed = -(-(100 - weights[0]) // weights[0])
    return (
        f"router Replicas cannot give a canary {', '.join(f'{w} %' for w in weights)} beside {replicas} stable "
        f"pod{'s' if replicas != 1 else ''}: one canary pod already gets {smallest} %. Use a weight of at least "
        f"{smallest}, spec.replicas of at least {needed}, or router GatewayAPI"
    )
