"""A first revision that is refused: nothing is trusted, so nothing may go on serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.api.conditions import find_condition
from penstock.api.status import Status
from penstock.core.objects import CONTROLLER_REVISION, DEPLOYMENT, HTTP_ROUTE, POD, SERVICE, ref_of
from tests.fakes.kubelet import DIGEST
from tests.scenario import GATEWAY, NAMESPACE, Behaviour, Scenario, spec
from tests.unit.core.test_story import V1, V2, degraded, healthy, served_by

REPLICAS = {"router": "Replicas"}
ROUTERS = pytest.mark.parametrize("traffic", [GATEWAY, REPLICAS], ids=["GatewayAPI", "Replicas"])


def rejected(status: Status) -> bool:
    return bool(status.rejected)


def wanted(uri: str, traffic: dict[str, Any]) -> dict[str, Any]:
    return spec(uri, traffic=traffic, rollout={**spec()["rollout"], "steps": [{"weight": 50}]})


def minutes(scenario: Scenario, number: int, play: Callable[[], None] = lambda: None) -> None:
    for _ in range(number * 12):
        play()
        scenario.tick()


def nothing_is_left(scenario: Scenario) -> None:
    left = [ref_of(o) for kind in (DEPLOYMENT, HTTP_ROUTE, SERVICE) for o in scenario.cluster.all(kind, NAMESPACE)]
    assert left == []
    assert len(scenario.cluster.all(CONTROLLER_REVISION, NAMESPACE)) == 1, "why it was refused is kept"


def nothing_is_said_to_serve(status: Status) -> None:
    available = find_condition(status.conditions, "Available")
    assert available is not None
    assert (available.status, available.message) == ("False", "Nothing serves yet.")
    assert str(status.message).startswith("Nothing serves yet. Rejected ")
    assert status.ready == "0/4"
    assert degraded(status)


@ROUTERS
def test_a_refused_first_model_goes_with_its_route_and_the_next_one_serves(traffic: dict[str, Any]) -> None:
    scenario = Scenario(behaviours={V1: Behaviour(loads=False)})
    scenario.apply(wanted(V1, traffic))
    status = scenario.run_until(rejected)
    nothing_is_said_to_serve(status)
    minutes(scenario, 2)
    nothing_is_left(scenario)
    nothing_is_said_to_serve(scenario.status)
    scenario.apply(wanted(V2, traffic))
    scenario.run_until(served_by(V2))


@ROUTERS
def test_a_first_revision_that_is_late_stops_serving_though_some_of_its_pods_are_ready(traffic: dict[str, Any]) -> None:
    scenario = Scenario()
    scenario.kubelet_works = False
    scenario.apply(wanted(V1, traffic))

    def three_of_four() -> None:
        for deployment in scenario.cluster.all(DEPLOYMENT, NAMESPACE):
            scenario.kubelet.make_ready(deployment, 3)

    minutes(scenario, 9, three_of_four)
    available = find_condition(scenario.status.conditions, "Available")
    assert available is not None
    assert available.status == "True"
    for _ in range(24):
        three_of_four()
        scenario.tick()
        if rejected(scenario.status):
            break
    nothing_is_said_to_serve(scenario.status)
    assert scenario.status.rejected[0].reason == "ProgressDeadlineExceeded"
    told = [e.message for e in scenario.recorder.events if e.reason == "Rejected"]
    assert "never got a request" not in str(told), "3 pods were reachable"
    minutes(scenario, 2, three_of_four)
    nothing_is_left(scenario)


def test_a_first_revision_whose_pods_saw_different_bytes_serves_none_of_them() -> None:
    scenario = Scenario()
    scenario.kubelet_works = False
    scenario.apply(wanted(V1, REPLICAS))
    scenario.tick()
    (deployment,) = scenario.cluster.all(DEPLOYMENT, NAMESPACE)
    scenario.kubelet.make_ready(deployment, 2, digest=DIGEST)
    pods = scenario.cluster.all(POD, NAMESPACE)
    other = scenario.kubelet._running(pods[3], deployment, is_ready=False, digest="sha256:" + 64 * "0", restarts=0)
    scenario.cluster.set_status(ref_of(pods[3]), other)
    status = scenario.run_until(rejected)
    assert status.rejected[0].reason == "SourceChanged"
    nothing_is_said_to_serve(status)
    minutes(scenario, 2)
    nothing_is_left(scenario)


def test_a_record_that_is_gone_takes_no_route_away() -> None:
    scenario = Scenario()
    scenario.apply(wanted(V1, GATEWAY))
    scenario.run_until(healthy)
    (record,) = scenario.cluster.all(CONTROLLER_REVISION, NAMESPACE)
    shares = scenario.shares()
    scenario.cluster.remove(ref_of(record))
    minutes(scenario, 1)
    assert scenario.shares() == shares


def test_a_first_revision_that_no_gateway_took_up_is_no_garbage_after_the_next() -> None:
    scenario = Scenario()
    scenario.gateway_works = False
    scenario.apply(wanted(V1, GATEWAY))
    minutes(scenario, 1)
    scenario.apply(wanted(V2, GATEWAY))
    minutes(scenario, 2)
    assert len(scenario.cluster.all(DEPLOYMENT, NAMESPACE)) == 1
    assert "No gateway has taken up the HTTPRoute" in str(scenario.status.message)
    scenario.gateway_works = True
    scenario.run_until(served_by(V2))
