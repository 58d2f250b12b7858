"""Pods go when their time is over and no router may still send them requests."""

from __future__ import annotations

from penstock.core.objects import CONTROLLER_REVISION, DEPLOYMENT, HTTP_ROUTE, LABEL_REVISION, POD
from tests.scenario import NAMESPACE, REF, Behaviour, Scenario, spec
from tests.unit.core.test_story import V1, V2, degraded, deployed, healthy, served_by
from tests.unit.core.test_trouble import V3, stepping


def revision_of(scenario: Scenario, uri: str) -> str:
    records = scenario.cluster.all(CONTROLLER_REVISION, NAMESPACE)
    return str(next(r["metadata"]["labels"][LABEL_REVISION] for r in records if r["data"]["model"]["uri"] == uri))


def pods_of(scenario: Scenario, uri: str) -> int:
    return len(scenario.cluster.all(POD, NAMESPACE, {LABEL_REVISION: revision_of(scenario, uri)}))


def minutes(scenario: Scenario, number: int) -> None:
    for _ in range(number * 12):
        scenario.tick()


def test_pods_of_a_canary_that_is_out_stay_until_the_gateway_has_let_go_of_them() -> None:
    scenario = deployed(Scenario(), v2=Behaviour(errors=0.5))
    scenario.apply(spec(V2))
    scenario.run_until(stepping(5))
    scenario.gateway_works = False
    scenario.run_until(degraded)
    minutes(scenario, 30)
    assert pods_of(scenario, V2) == 1, "the gateway still sends it 5 %"
    busy = scenario.cluster.reads
    due = scenario.reconcile()
    assert due is None or due >= scenario.clock.now() + 1, "waiting is no reason to reconcile without pause"
    assert scenario.cluster.reads > busy
    scenario.gateway_works = True
    minutes(scenario, 2)
    assert pods_of(scenario, V2) == 0


def test_pods_of_a_canary_that_never_was_in_the_route_wait_for_no_gateway() -> None:
    scenario = deployed(Scenario())
    scenario.kubelet_works = False
    scenario.apply(spec(V2))
    scenario.tick()
    for deployment in scenario.cluster.all(DEPLOYMENT, NAMESPACE, {LABEL_REVISION: revision_of(scenario, V2)}):
        scenario.kubelet.make_ready(deployment, 0)
    assert pods_of(scenario, V2) == 1
    scenario.gateway_works = False
    elsewhere = {**spec()["traffic"], "parentRefs": [{"name": "nowhere"}]}
    scenario.apply(spec(V1, traffic=elsewhere))
    minutes(scenario, 2)
    assert scenario.cluster.all(HTTP_ROUTE, NAMESPACE)[0]["spec"]["parentRefs"] == [{"name": "nowhere"}]
    assert pods_of(scenario, V2) == 0


def test_an_old_revision_whose_traffic_has_moved_waits_for_no_gateway() -> None:
    scenario = deployed(Scenario())
    rollout = {**spec()["rollout"], "scaleDownDelay": "1m"}
    scenario.apply(spec(V2, rollout=rollout))
    scenario.run_until(served_by(V2))
    scenario.gateway_works = False
    scenario.apply(spec(V2, rollout=rollout, traffic={**spec()["traffic"], "hostnames": ["other.example.com"]}))
    minutes(scenario, 2)
    assert pods_of(scenario, V1) == 0


def test_a_third_revision_starts_when_the_gateway_has_let_go_of_the_second() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(stepping(25))
    scenario.gateway_works = False
    scenario.apply(spec(V3))
    minutes(scenario, 5)
    assert pods_of(scenario, V2) == 1
    assert len(scenario.cluster.all(DEPLOYMENT, NAMESPACE)) == 2
    scenario.gateway_works = True
    scenario.run_until(served_by(V3))


def test_pods_that_a_lost_status_knew_stay_until_the_gateway_has_let_go_of_them() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(stepping(25))
    scenario.gateway_works = False
    scenario.apply(spec(V1))
    scenario.cluster.set_status(REF, None)
    minutes(scenario, 5)
    assert pods_of(scenario, V2) == 1
    scenario.gateway_works = True
    minutes(scenario, 2)
    assert pods_of(scenario, V2) == 0
    assert healthy(scenario.status)
