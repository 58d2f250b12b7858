"""What a gateway says of the route, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.conditions import find_condition
from penstock.api.status import Phase, Status
from penstock.core import parents
from penstock.core.objects import HTTP_ROUTE, Object, Ref
from tests.fakes.copying import copied
from tests.scenario import NAME, NAMESPACE, REF, Scenario, spec
from tests.unit.core.test_story import V1, V2, deployed, healthy, served_by

ROUTE = Ref(HTTP_ROUTE, NAMESPACE, NAME)


def entry(ref: dict[str, Any], generation: int = 3, status: str = "True", controller: str = "example.com/a") -> Object:
    conditions = [
        {"type": kind, "status": status, "reason": "R", "message": "M", "observedGeneration": generation}
        for kind in ("Accepted", "ResolvedRefs")
    ]
    return {"parentRef": ref, "controllerName": controller, "conditions": conditions}


def route(refs: list[dict[str, Any]], *entries: Object) -> Object:
    return {
        "metadata": {"name": NAME, "namespace": NAMESPACE, "generation": 3},
        "spec": {"parentRefs": refs},
        "status": {"parents": list(entries)},
    }


PUBLIC = {"name": "public"}
FULL = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": NAMESPACE, "name": "public"}


@pytest.mark.parametrize("told", [PUBLIC, FULL])
def test_a_parent_is_the_same_with_its_defaults_written_out(told: dict[str, Any]) -> None:
    assert parents.answer(route([PUBLIC], entry(told))).problem == ""
    assert parents.answer(route([FULL], entry(told))).problem == ""


@pytest.mark.parametrize(
    "other",
    [
        {"name": "private"},
        {"name": "public", "namespace": "elsewhere"},
        {"name": "public", "sectionName": "https"},
        {"name": "public", "port": 8443},
        {"name": "public", "kind": "Service", "group": ""},
    ],
)
def test_another_parents_acceptance_is_not_this_ones(other: dict[str, Any]) -> None:
    assert "no gateway has taken up" in parents.answer(route([PUBLIC], entry(other))).problem
    both = route([PUBLIC, other], entry(PUBLIC))
    assert "no gateway has taken up" in parents.answer(both).problem, "each parent named must be accepted"
    assert parents.answer(route([PUBLIC, other], entry(PUBLIC), entry(other))).problem == ""


def test_what_a_controller_that_is_gone_left_behind_has_no_say() -> None:
    old = entry({"name": "former"}, generation=1, status="False")
    assert parents.answer(route([PUBLIC], old, entry(PUBLIC))).problem == ""
    same_parent = entry(PUBLIC, generation=1, controller="example.com/uninstalled")
    assert parents.answer(route([PUBLIC], same_parent, entry(PUBLIC))).problem == ""


def test_a_refusal_tells_more_than_silence_and_an_old_one_is_no_refusal() -> None:
    silent = entry(PUBLIC, generation=2, controller="example.com/b")
    told = parents.answer(route([PUBLIC], silent, entry(PUBLIC, status="False")))
    assert (told.refused, told.broken) == (True, True)
    assert "Accepted is False (R: M)" in told.problem
    late = parents.answer(route([PUBLIC], entry(PUBLIC, generation=2, status="False")))
    assert (late.refused, late.broken) == (False, False)
    assert "has not yet taken over generation 3" in late.problem


def test_an_entry_left_by_an_uninstalled_controller_holds_no_rollout() -> None:
    scenario = deployed(Scenario())
    accept = scenario.kubelet.accept_route

    def with_a_leftover(namespace: str, name: str) -> Object:
        live = accept(namespace, name)
        status = copied(live["status"])
        status["parents"].insert(0, entry({"name": "former"}, generation=1))
        return scenario.cluster.set_status(ROUTE, status)

    scenario.kubelet.accept_route = with_a_leftover  # type: ignore[method-assign, assignment]
    scenario.apply(spec(V2))
    scenario.run_until(served_by(V2))


def conditions(status: Status) -> dict[str, tuple[str, str]]:
    return {c.type: (str(c.status), c.reason) for c in status.conditions}


def other_gateway(scenario: Scenario) -> None:
    """The user names another one, and nobody answers."""
    scenario.gateway_works = False
    scenario.apply(spec(V1, traffic={"router": "GatewayAPI", "parentRefs": [{"name": "nowhere"}]}))


def test_a_gateway_that_nobody_runs_is_not_healthy_and_a_right_one_is() -> None:
    scenario = deployed(Scenario())
    other_gateway(scenario)
    scenario.reconcile()
    assert not healthy(scenario.status), "what the former gateway accepted says nothing of the new one"
    for _ in range(20):
        scenario.tick()
    status = scenario.status
    told = conditions(status)
    assert status.phase == Phase.PROGRESSING
    assert told["Ready"] == ("False", "RouteNotAccepted")
    assert told["Available"] == ("True", "Serving"), "Service m leads to the pods"
    assert "Reconciling" in told
    assert "Stalled" not in told
    assert "through a gateway may not arrive. No gateway has taken up the HTTPRoute" in str(status.message)
    assert "no user impact" not in str(status.conditions)
    scenario.gateway_works = True
    scenario.apply(spec(V1))
    assert conditions(scenario.run_until(healthy))["Ready"] == ("True", "Healthy")


def test_a_gateway_that_refuses_the_route_needs_a_human() -> None:
    scenario = deployed(Scenario())
    other_gateway(scenario)
    scenario.tick()
    scenario.kubelet.accept_route(NAMESPACE, NAME, accepted=False, message="no listener of that name")
    scenario.tick()
    told = conditions(scenario.status)
    assert scenario.status.phase == Phase.DEGRADED
    assert told["Ready"] == ("False", "RouteNotAccepted")
    assert told["Stalled"] == ("True", "RouteNotAccepted")
    assert told["Available"] == ("True", "Serving")
    message = str(scenario.status.message)
    assert "Gateway nowhere: Accepted is False (NoMatchingParent: no listener of that name)" in message
    assert message.endswith("Correct spec.traffic or the Gateway.")
    scenario.gateway_works = True
    status = scenario.run_until(healthy)
    assert find_condition(status.conditions, "Stalled") is None


def test_a_rollout_never_says_healthy_before_the_route_is_back() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(lambda s: s.traffic is not None and (s.traffic.applied_weight or 0) >= 25)
    written = len(scenario.cluster.writes)
    scenario.apply(spec(V1))
    scenario.run_until(healthy)
    for _ in range(5):
        scenario.tick()
    phases: list[str] = []
    for write in scenario.cluster.writes[written:]:
        phase = ((write.obj or {}).get("status") or {}).get("phase") if write.ref == REF else None
        if phase and phases[-1:] != [phase]:
            phases.append(phase)
    assert phases == ["Progressing", "Healthy"], "no way back and forth"


def test_a_model_stays_healthy_through_a_promotion() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(served_by(V2))
    written = len(scenario.cluster.writes)
    for _ in range(5):
        scenario.tick()
        assert healthy(scenario.status)
    assert [w for w in scenario.cluster.writes[written:] if w.ref == REF] == []
