"""The status is gone: what the records tell, and when nobody can tell."""

from __future__ import annotations

from penstock.api.conditions import find_condition
from penstock.api.status import Phase
from penstock.core.objects import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    HTTP_ROUTE,
    LABEL_REVISION,
    POD,
    Object,
    Ref,
)
from penstock.core.observe import ANNOTATION_COHORT
from tests.scenario import NAME, NAMESPACE, REF, Behaviour, Scenario, spec
from tests.unit.core.test_story import V1, V2, degraded, deployed, healthy, served_by
from tests.unit.core.test_trouble import stepping, under_way, uri_of_stable


def test_a_status_lost_mid_way_is_recovered_and_the_canary_begins_anew() -> None:
    scenario = under_way(Scenario())
    stable = scenario.status.stable
    scenario.cluster.set_status(REF, None)
    scenario.tick()
    status = scenario.status
    assert status.stable is not None
    assert stable is not None
    assert status.stable.revision == stable.revision
    assert "RecoveryAmbiguous" not in str(status.conditions)
    scenario.run_until(served_by(V2))


def test_a_canary_that_begins_anew_is_told_the_new_cohort() -> None:
    scenario = under_way(Scenario())
    first = scenario.status.rollout
    scenario.cluster.set_status(REF, None)
    scenario.run_until(stepping(5))
    rollout, canary = scenario.status.rollout, scenario.status.canary
    assert rollout is not None
    assert canary is not None
    assert first is not None
    assert rollout.id != first.id
    pods = scenario.cluster.all(POD, NAMESPACE, {LABEL_REVISION: str(canary.revision)})
    assert [pod["metadata"]["annotations"][ANNOTATION_COHORT] for pod in pods] == [rollout.id]


def test_a_status_lost_after_a_rollback_does_not_let_the_refused_model_in() -> None:
    scenario = deployed(Scenario(), v2=Behaviour(accuracy=0.2))
    scenario.apply(spec(V2))
    refused = scenario.run_until(degraded).rejected[0].revision
    scenario.cluster.set_status(REF, None)
    served = dict(scenario.served)
    for _ in range(60):
        scenario.tick()
    status = scenario.status
    assert status.phase == Phase.DEGRADED
    assert uri_of_stable(status) == V1
    assert [r.revision for r in status.rejected] == [refused]
    assert scenario.served[str(refused)] == served[str(refused)]


def test_a_status_lost_with_contradicting_records_moves_nothing() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(served_by(V2))
    scenario.cluster.set_status(REF, None)
    first = next(r for r in scenario.cluster.all(CONTROLLER_REVISION, NAMESPACE) if r["data"]["model"]["uri"] == V1)

    def only_the_old_one(route: Object) -> None:
        route["spec"]["rules"][0]["backendRefs"] = [{"name": first["metadata"]["name"], "port": 80, "weight": 100}]

    scenario.cluster.edit(Ref(HTTP_ROUTE, NAMESPACE, NAME), only_the_old_one)
    before = scenario.shares()
    for _ in range(10):
        scenario.tick()
    stalled = find_condition(scenario.status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "RecoveryAmbiguous"
    assert scenario.shares() == before


def test_a_lost_status_tells_who_serves_until_a_human_decides() -> None:
    scenario = deployed(Scenario())
    first = str(scenario.status.stable.revision if scenario.status.stable else "")
    scenario.apply(spec(V2))
    scenario.run_until(stepping(25))
    second = str(scenario.status.canary.revision if scenario.status.canary else "")
    scenario.cluster.set_status(REF, None)

    def only_the_new_one(route: Object) -> None:
        route["spec"]["rules"][0]["backendRefs"] = [{"name": f"{NAME}-{second}", "port": 80, "weight": 100}]

    scenario.cluster.edit(Ref(HTTP_ROUTE, NAMESPACE, NAME), only_the_new_one)
    for _ in range(3):
        scenario.tick()
    status = scenario.status
    available = find_condition(status.conditions, "Available")
    assert available is not None
    assert (available.status, (status.message or "").split(".")[0]) == (
        "True",
        f"Traffic stays as it is: {second} 100 %",
    )

    # as the message says: the spec that is to serve, then the other revision goes
    scenario.apply(spec(V1))
    for kind in (CONTROLLER_REVISION, DEPLOYMENT):
        scenario.cluster.remove(Ref(kind, NAMESPACE, f"{NAME}-{second}"))
    scenario.run_until(healthy)
    assert scenario.shares() == {first: 1.0}
