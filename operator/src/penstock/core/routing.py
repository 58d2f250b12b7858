"""Routers: how a share of the requests becomes Kubernetes objects, and how to see that it did.

A router is pure: it says which objects a split needs and reads the split off live objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.api import traffic as api_traffic
from penstock.core import names, parents
from penstock.core.objects import (
    HTTP_ROUTE,
    LABEL_COMPONENT,
    LABEL_MODEL,
    LABEL_REVISION,
    SERVICE,
    Kind,
    Object,
)
from penstock.core.quantities import same
from penstock.core.render import Owner, metadata
from penstock.core.world import Revision, Traffic

SERVICE_PORTS: tuple[Mapping[str, Any], ...] = (
    {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
    # HTTP/2 without TLS, which gateways and meshes cannot tell from the bytes.
    {"name": "grpc", "port": 9000, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
    {"name": "admin", "port": 9091, "targetPort": "admin", "protocol": "TCP"},
)


@dataclass(frozen=True, slots=True)
class Split:
    """Who gets what: `weight` percent to the canary, the rest to the stable revision."""

    stable: str | None
    canary: str | None
    weight: int

    def shares(self) -> dict[str, int]:
        """Percent per revision, those above 0. A canary without a stable revision gets everything."""
        if self.canary and (self.stable is None or self.weight >= 100):
            return {self.canary: 100}
        shares = {self.stable: 100 - self.weight} if self.stable else {}
        if self.canary and self.weight > 0:
            shares[self.canary] = self.weight
        return shares


class Router(Protocol):
    """What differs between ways to split traffic."""

    exact: bool
    """Whether shares are exact, so that pods of a third revision may be there without getting any."""

    def achievable(self, weight: int, replicas: int) -> int:
        """The largest share, in percent, that can be made and is not above `weight`; 0 if none can."""

    def canary_replicas(self, weight: int, replicas: int) -> int:
        """Pods the canary needs for this weight beside a stable revision of `replicas` pods."""

    def manifests(self, owner: Owner, split: Split, ports: Mapping[str, int]) -> list[Object]:
        """The objects that make the split."""

    def observe(self, split: Split, live: Sequence[Object], revisions: Mapping[str, Revision]) -> Traffic:
        """Where requests go now, and whether that is the split."""


def router_for(traffic: api_traffic.Traffic) -> Router:
    """The router that a spec asks for."""
    match traffic.router:
        case "GatewayAPI":
            return GatewayRouter(traffic)
        case _:
            return ReplicaRouter()


def service(owner: Owner, name: str, component: str, selector: Mapping[str, str], ports: Mapping[str, int]) -> Object:
    """A ClusterIP Service over model pods."""
    revision = selector.get(LABEL_REVISION) if component == "server" else None
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": metadata(owner, name, component, revision),
        "spec": {
            "selector": dict(selector),
            "ports": [dict(port) for port in SERVICE_PORTS if port["targetPort"] in ports],
        },
    }


def selector(model: str, revision: str | None) -> dict[str, str]:
    """Selects the pods of one revision, or of the whole model."""
    labels = {LABEL_MODEL: model, LABEL_COMPONENT: "server"}
    return {**labels, LABEL_REVISION: revision} if revision else labels


def _find(live: Sequence[Object], kind: Kind, name: str) -> Object | None:
    return next((o for o in live if o["kind"] == kind.kind and o["metadata"]["name"] == name), None)


class ReplicaRouter:
    """Shares follow pod counts behind one Service: no extra component, and never more than asked for."""

    exact = False

    def achievable(self, weight: int, replicas: int) -> int:
        """See Router. `k` canary pods beside `replicas` stable ones get k / (k + replicas)."""
        canary = self.canary_replicas(weight, replicas)
        return max(1, 100 * canary // (canary + replicas)) if canary else 0

    def canary_replicas(self, weight: int, replicas: int) -> int:
        """See Router. The full size at 100 %, else the most that does not overshoot."""
        return replicas if weight >= 100 else min(replicas * weight // (100 - weight), replicas)

    def manifests(self, owner: Owner, split: Split, ports: Mapping[str, int]) -> list[Object]:
        """See Router. The Service selects one revision at 0 and 100 %, the model while blending."""
        return [service(owner, owner.name, "route", self._selector(owner.name, split), ports)]

    @staticmethod
    def _selector(model: str, split: Split) -> dict[str, str]:
        shares = split.shares()
        return selector(model, next(iter(shares)) if len(shares) == 1 else None)

    def observe(self, split: Split, live: Sequence[Object], revisions: Mapping[str, Revision]) -> Traffic:
        """See Router. The share is that of the ready pods the Service selects."""
        found = next((o for o in live if _is_main_service(o)), None)
        if found is None:
            return _without("the Service", split)
        model = found["metadata"]["name"]
        chosen = found["spec"].get("selector", {})
        only = chosen.get(LABEL_REVISION)
        counts = {r.name: r.ready for r in revisions.values() if r.ready and only in (None, r.name)}
        total = sum(counts.values())
        weights = {name: round(100 * n / total) for name, n in counts.items()} if total else {}
        right = bool(split.shares()) and chosen == self._selector(model, split)
        return Traffic(weights, confirmed=right, problem="" if right else "the Service still selects other pods")


def _without(what: str, split: Split) -> Traffic:
    """No such object: as it must be where nobody is to get anything."""
    if not split.shares():
        return Traffic({}, confirmed=True)
    return Traffic({}, confirmed=False, problem=f"{what} does not exist yet")


def _is_main_service(obj: Object) -> bool:
    return bool(obj["kind"] == SERVICE.kind and obj["metadata"].get("labels", {}).get(LABEL_COMPONENT) == "route")


class GatewayRouter:
    """Exact weights by an HTTPRoute over one Service per revision."""

    exact = True

    def __init__(self, traffic: api_traffic.Traffic) -> None:
        self._traffic = traffic

    def achievable(self, weight: int, replicas: int) -> int:
        """See Router. Any whole percent."""
        del replicas
        return weight

    def canary_replicas(self, weight: int, replicas: int) -> int:
        """See Router. Sized by weight, at least one pod."""
        return max(1, math.ceil(weight * replicas / 100)) if replicas else 0

    def manifests(self, owner: Owner, split: Split, ports: Mapping[str, int]) -> list[Object]:
        """See Router. In-cluster callers of the Service get what is stable."""
        inside = split.stable if split.stable and split.weight < 100 else split.canary
        return [
            service(owner, owner.name, "route", selector(owner.name, inside), ports),
            self._route(owner, split),
        ]

    def _route(self, owner: Owner, split: Split) -> Object:
        return {
            "apiVersion": HTTP_ROUTE.api_version,
            "kind": HTTP_ROUTE.kind,
            "metadata": metadata(owner, owner.name, "route"),
            "spec": self._spec(owner.name, split),
        }

    def _spec(self, model: str, split: Split) -> Object:
        prefixes = [m.path_prefix for m in self._traffic.matches] or [f"/v2/models/{model}"]
        spec: dict[str, Any] = {
            "parentRefs": [ref.model_dump(by_alias=True, exclude_none=True) for ref in self._traffic.parent_refs],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": p}} for p in prefixes],
                    "backendRefs": [
                        {"name": names.of_revision(model, revision), "port": 80, "weight": weight}
                        for revision, weight in split.shares().items()
                    ],
                }
            ],
        }
        if self._traffic.hostnames:
            spec["hostnames"] = list(self._traffic.hostnames)
        return spec

    def observe(self, split: Split, live: Sequence[Object], revisions: Mapping[str, Revision]) -> Traffic:
        """See Router. Confirmed when every parent accepted this very generation of the route, and it is as wanted."""
        del revisions
        route = next((o for o in live if o["kind"] == HTTP_ROUTE.kind), None)
        if route is None:
            return _without("the HTTPRoute", split)
        generation = int(route["metadata"].get("generation", 0))
        weights = _backend_weights(route)
        if weights != split.shares():
            return Traffic(
                weights,
                confirmed=False,
                problem="the HTTPRoute still has other weights",
                generation=generation,
            )
        if not same({"hostnames": [], **self._spec(route["metadata"]["name"], split)}, route["spec"]):
            problem = "the HTTPRoute still has other gateways, host names or paths"
            return Traffic(weights, confirmed=False, problem=problem, generation=generation)
        told = parents.answer(route)
        return Traffic(
            weights,
            confirmed=not told.problem,
            problem=told.problem,
            generation=generation,
            broken=told.broken,
            refused=told.refused,
        )


def _backend_weights(route: Object) -> dict[str, int]:
    prefix = route["metadata"]["name"] + "-"
    rules = route["spec"].get("rules") or [{}]
    return {ref["name"].removeprefix(prefix): int(ref.get("weight", 1)) for ref in rules[0].get("backendRefs", ())}
