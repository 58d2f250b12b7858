"""Router Replicas makes a share of pods: never a larger one than asked for, never one of a third revision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.api.conditions import find_condition
from penstock.api.status import Stage, Status
from penstock.core.objects import DEPLOYMENT, LABEL_REVISION, ROLLOUT_ANALYSIS, Object, ref_of
from tests.scenario import GATEWAY, NAMESPACE, QUICK, Scenario, outcomes, spec
from tests.unit.core.test_retiring import minutes, pods_of, revision_of
from tests.unit.core.test_story import V1, V2, healthy, served_by
from tests.unit.core.test_trouble import V3, stepping

REPLICAS = {"router": "Replicas"}


def wanted(uri: str, *weights: int, **changes: Any) -> dict[str, Any]:
    rollout = {**spec()["rollout"], "steps": [{"weight": w} for w in weights]}
    return spec(uri, **{"traffic": REPLICAS, "rollout": rollout, **changes})


def begun(*weights: int, labels: bool = True, **changes: Any) -> Scenario:
    """V1 serves, and V2 is asked for; without labels a step never passes its accuracy gate."""
    scenario = Scenario()
    scenario.apply(wanted(V1, *weights, **changes))
    scenario.run_until(healthy)
    if not labels:
        leave_labels_out(scenario)
    scenario.apply(wanted(V2, *weights, **changes))
    return scenario


def leave_labels_out(scenario: Scenario) -> None:
    count = scenario._count

    def only_requests(pod: Object, revision: str, name: str, labels: Mapping[str, str], n: int) -> None:
        if name != "penstock_feedback_total":
            count(pod, revision, name, labels, n)

    scenario._count = only_requests  # type: ignore[method-assign]


def told(status: Status) -> int:
    return (status.traffic.applied_weight if status.traffic else 0) or 0


def share(scenario: Scenario, uri: str) -> float:
    return 100 * scenario.shares().get(revision_of(scenario, uri), 0)


def unreachable(scenario: Scenario, *words: str) -> None:
    stalled = find_condition(scenario.status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "WeightUnreachable"
    for word in words:
        assert word in stalled.message


def test_scaling_down_below_a_step_takes_its_weight_back_until_it_can_be_made_again() -> None:
    scenario = begun(20, 50, labels=False)
    scenario.run_until(stepping(20))
    minutes(scenario, 2)
    assert share(scenario, V2) == 20
    before = evidence(scenario)
    scenario.apply(wanted(V2, 20, 50, replicas=1))
    for _ in range(24):
        scenario.tick()
        assert share(scenario, V2) == 0, "one pod of two would be 50 %"
        assert told(scenario.status) == 0
    unreachable(scenario, "20 % beside 1 stable pod", "weight of at least 50", "spec.replicas of at least 4")
    assert "no user impact" in str(scenario.status.message)
    assert len([e for e in scenario.recorder.events if e.reason == "WeightUnreachable"]) == 1
    scenario.apply(wanted(V2, 20, 50))
    status = scenario.run_until(stepping(20))
    assert find_condition(status.conditions, "Stalled") is None
    minutes(scenario, 1)
    assert share(scenario, V2) == 20
    assert status.rollout is not None
    assert status.rollout.step_index == 0
    assert evidence(scenario) >= before > 0, "what was measured is kept"
    assert outcomes(status) == ["Promoted"]


def evidence(scenario: Scenario) -> int:
    """Requests of the canary that its errors gate has counted."""
    (analysis,) = scenario.cluster.all(ROLLOUT_ANALYSIS, NAMESPACE)
    return int(next(g for g in analysis["status"]["gates"] if g["name"] == "errors")["samples"]["canary"])


def test_scaling_down_where_stable_is_down_leaves_the_canary_what_it_has() -> None:
    scenario = begun(20, 50, labels=False)
    scenario.run_until(stepping(20))
    scenario.kubelet_works = False
    (stable,) = scenario.cluster.all(DEPLOYMENT, NAMESPACE, {LABEL_REVISION: revision_of(scenario, V1)})
    for pod in scenario.kubelet.pods(stable):
        scenario.cluster.set_status(ref_of(pod), {"phase": "Failed"})
    scenario.apply(wanted(V2, 20, 50, replicas=1))
    for _ in range(6):
        scenario.tick()
        assert share(scenario, V2) == 100


def test_steps_edited_to_one_that_pods_cannot_make_are_not_told_as_if_they_could() -> None:
    scenario = begun(20, 50)
    scenario.reconcile(3)
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.stage == Stage.LOADING
    scenario.apply(wanted(V2, 1, 50))
    for _ in range(24):
        scenario.tick()
        assert share(scenario, V2) == 0, "one pod of five would be 20 %"
    unreachable(scenario, "a canary 1 %", "weight of at least 20")
    scenario.apply(wanted(V2, 20, 50))
    scenario.run_until(served_by(V2))


def test_no_weight_is_blended_while_a_former_revision_has_pods() -> None:
    scenario = Scenario()
    scenario.apply(wanted(V1, 25, traffic=GATEWAY))
    scenario.run_until(healthy)
    scenario.apply(wanted(V2, 25, traffic=GATEWAY))
    scenario.run_until(served_by(V2))
    scenario.apply(wanted(V3, 25, 50, traffic=GATEWAY))
    scenario.run_until(stepping(25))
    assert pods_of(scenario, V1) == 4, "kept for going back"
    scenario.apply(wanted(V3, 25, 50))
    served = dict(scenario.served)
    for _ in range(60):
        scenario.tick()
        assert revision_of(scenario, V1) not in scenario.shares()
        if stepping(0)(scenario.status):
            assert scenario.status.traffic is not None
            assert share(scenario, V3) <= (scenario.status.traffic.desired_weight or 0)
        if served_by(V3)(scenario.status):
            break
    assert served_by(V3)(scenario.status), scenario.status.message
    assert scenario.served[revision_of(scenario, V1)] == served[revision_of(scenario, V1)]


def test_a_weight_of_a_gateway_that_pods_cannot_make_is_taken_back_and_defaults_go_on() -> None:
    scenario = begun(5, traffic=GATEWAY, labels=False)
    scenario.run_until(stepping(5))
    scenario.apply(wanted(V2, 5))
    for _ in range(12):
        scenario.tick()
        assert share(scenario, V2) == 0
    unreachable(scenario, "5 % beside 4 stable pods", "router GatewayAPI")
    gates = spec()["rollout"]["gates"]
    scenario.apply(wanted(V2, rollout={"analysis": QUICK, "gates": gates}))
    status = scenario.run_until(stepping(25))
    assert find_condition(status.conditions, "Stalled") is None
    assert share(scenario, V2) == 20, "the default step of 25 %: one pod of five"
