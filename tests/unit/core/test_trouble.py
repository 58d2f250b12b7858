"""What goes wrong around a rollout: outages, changes of mind, lost status, hands in the machine."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from penstock.api.conditions import find_condition
from penstock.api.status import Phase, Stage, Status
from penstock.core.objects import (
    CLUSTER_MODEL_RUNTIME,
    DEPLOYMENT,
    HTTP_ROUTE,
    LABEL_REVISION,
    POD,
    SECRET,
    SERVICE,
    Kind,
    Object,
    Ref,
    ref_of,
)
from penstock.ports import Invalid
from tests.fakes.copying import copied
from tests.scenario import KEY, NAME, NAMESPACE, QUICK, REF, Behaviour, Scenario, outcomes, spec
from tests.unit.core.test_story import V1, V2, degraded, deployed, healthy, served_by

V3 = "http://files/v3.onnx"


def stepping(at_least: int = 1) -> Callable[[Status], bool]:
    def reached(status: Status) -> bool:
        weight = (status.traffic.applied_weight if status.traffic else 0) or 0
        return status.rollout is not None and status.rollout.stage == Stage.STEPPING and weight >= at_least

    return reached


def under_way(scenario: Scenario, at_least: int = 25) -> Scenario:
    scenario = deployed(scenario)
    scenario.apply(spec(V2))
    scenario.run_until(stepping(at_least))
    return scenario


def uri_of_stable(status: Status) -> str | None:
    return status.stable.uri if status.stable else None


def test_an_outage_of_the_metrics_freezes_the_weight_and_decides_nothing() -> None:
    scenario = under_way(Scenario())
    scenario.metrics.down = "connection refused"
    scenario.tick()
    scenario.tick()
    frozen, seq = scenario.status.traffic, scenario.status.seq
    for _ in range(200):
        scenario.tick()
    status = scenario.status
    assert status.seq is not None
    assert seq is not None
    assert status.seq - seq <= 4, "only the report of every five minutes"
    assert status.phase == Phase.PROGRESSING
    assert status.traffic is not None
    assert frozen is not None
    assert status.traffic.applied_weight == frozen.applied_weight
    measured = find_condition(status.conditions, "Measured")
    assert measured is not None
    assert (measured.status, measured.reason) == ("False", "CannotMeasure")
    assert status.rollout is not None
    assert status.rollout.blind_since is not None
    scenario.metrics.down = None
    assert uri_of_stable(scenario.run_until(served_by(V2))) == V2


def test_a_gate_added_while_the_metrics_are_away_is_judged_blind_as_the_others() -> None:
    scenario = under_way(Scenario())
    scenario.metrics.down = "connection refused"
    latency = {"name": "latency", "compare": {"signal": "latency", "maxRatio": 1.2}, "required": False}
    gates = [*spec()["rollout"]["gates"], latency]
    scenario.apply(spec(V2, rollout={**spec()["rollout"], "gates": gates}))
    scenario.tick()
    gates_seen = scenario.status.rollout.gates if scenario.status.rollout else ()
    assert {g.name: g.verdict for g in gates_seen} == dict.fromkeys(("accuracy", "errors", "latency"), "CannotMeasure")
    scenario.metrics.down = None
    assert uri_of_stable(scenario.run_until(served_by(V2))) == V2


def test_the_deadline_stands_still_while_blind() -> None:
    scenario = deployed(Scenario(requests_per_second=2))
    rollout = {**spec()["rollout"], "maxDuration": "10m", "onInconclusive": "Rollback"}
    scenario.apply(spec(V2, rollout=rollout))
    scenario.run_until(stepping(5))
    scenario.metrics.down = "connection refused"
    for _ in range(200):
        scenario.tick()
    assert scenario.status.phase == Phase.PROGRESSING
    scenario.metrics.down = None
    scenario.run_until(degraded)
    assert outcomes(scenario.status)[-1] == "RolledBack"


def test_going_back_in_git_cancels_the_canary() -> None:
    scenario = under_way(Scenario())
    scenario.apply(spec(V1))
    status = scenario.run_until(healthy)
    assert uri_of_stable(status) == V1
    assert outcomes(status) == ["Promoted", "Cancelled"]
    assert status.rejected == ()


def test_a_third_revision_waits_until_the_middle_one_has_no_traffic() -> None:
    scenario = under_way(Scenario())
    middle = scenario.status.canary
    assert middle is not None
    scenario.apply(spec(V3))
    status = scenario.run_until(served_by(V3))
    assert outcomes(status) == ["Promoted", "Superseded", "Promoted"]
    assert scenario.weights_seen.count(0) >= 2


def test_paused_keeps_the_weight_and_a_failing_canary_still_goes() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(stepping(5))
    scenario.apply(spec(V2, paused=True))
    for _ in range(50):
        scenario.tick()
    assert scenario.status.phase == Phase.PAUSED
    assert stepping(5)(scenario.status)
    scenario.behaviours[V2] = Behaviour(errors=0.5)
    scenario.run_until(degraded)
    assert outcomes(scenario.status)[-1] == "RolledBack"


def test_a_pause_step_waits_for_a_human_to_take_it_out() -> None:
    scenario = deployed(Scenario())
    steps = [{"weight": 25}, {"pause": {}}, {"weight": 50}]
    scenario.apply(spec(V2, rollout={**spec()["rollout"], "steps": steps}))
    scenario.run_until(lambda status: status.phase == Phase.PAUSED)
    for _ in range(50):
        scenario.tick()
    assert stepping(25)(scenario.status)
    scenario.apply(spec(V2, rollout={**spec()["rollout"], "steps": [steps[0], steps[2]]}))
    scenario.run_until(served_by(V2))


def test_a_hold_step_takes_its_time() -> None:
    scenario = deployed(Scenario())
    steps = [{"weight": 50}, {"hold": "30m"}]
    scenario.apply(spec(V2, rollout={**spec()["rollout"], "steps": steps}))
    scenario.run_until(stepping(50))
    began = scenario.clock.now()
    scenario.run_until(served_by(V2), ticks=600)
    assert scenario.clock.now() - began >= 1800


def test_somebody_elses_object_is_never_seized() -> None:
    scenario = Scenario()
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    scenario.cluster.put(theirs)
    scenario.apply(spec(V1))
    for _ in range(10):
        scenario.tick()
    stalled = find_condition(scenario.status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "NameConflict"
    assert scenario.cluster.must(Ref(SERVICE, NAMESPACE, NAME))["spec"]["selector"] == {"app": "theirs"}
    assert scenario.cluster.all(DEPLOYMENT, NAMESPACE) == []


def test_a_route_edited_by_hand_is_put_right() -> None:
    scenario = deployed(Scenario())
    stable = scenario.status.stable

    def meddle(route: Object) -> None:
        route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 7

    scenario.cluster.edit(Ref(HTTP_ROUTE, NAMESPACE, NAME), meddle)
    scenario.tick()
    assert stable is not None
    assert scenario.shares() == {stable.revision: 1.0}


def test_a_canary_whose_pods_all_break_goes_without_any_metric() -> None:
    scenario = under_way(Scenario())
    canary = scenario.status.canary
    assert canary is not None
    scenario.behaviours[V2] = Behaviour(loads=False, reason="OutOfMemory")
    scenario.metrics.down = "connection refused"
    status = scenario.run_until(degraded)
    assert outcomes(status)[-1] == "RolledBack"
    assert list(scenario.shares()) == [status.stable.revision if status.stable else None]


def break_stable(scenario: Scenario) -> None:
    """Every pod of stable crashes again and again."""
    scenario.kubelet_works = False
    stable = scenario.status.stable
    assert stable is not None
    scenario.kubelet.fail_load(Ref(DEPLOYMENT, NAMESPACE, f"{NAME}-{stable.revision}"), "Crash", "segmentation fault")


def test_a_failing_canary_stays_while_stable_has_no_pod_to_go_back_to() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(stepping(25))
    scenario.behaviours[V2] = Behaviour(errors=0.9)
    for _ in range(6):
        scenario.clock.advance(5)
        scenario.play_traffic(5)
    break_stable(scenario)
    for _ in range(6):
        scenario.reconcile()
    status = scenario.status
    assert status.canary is not None
    stalled = find_condition(status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "StableBroken"


def test_a_hotfix_of_a_stable_that_is_down_waits_for_no_step() -> None:
    scenario = deployed(Scenario())
    break_stable(scenario)
    scenario.apply(spec(V2))
    scenario.forget_weights()
    for _ in range(10):
        scenario.reconcile()
        for deployment in scenario.cluster.all(DEPLOYMENT, NAMESPACE):
            if deployment["spec"]["template"]["spec"]["initContainers"][0]["args"][2] == V2:
                scenario.kubelet.make_ready(deployment)
        scenario.kubelet.accept_route(NAMESPACE, NAME)
    assert uri_of_stable(scenario.status) == V2
    assert scenario.weights_seen == [0, 100, 0]


def test_what_the_cluster_refuses_is_told_as_an_event() -> None:
    scenario = Scenario()
    scenario.cluster.missing.add(HTTP_ROUTE)
    scenario.apply(spec(V1))

    def until_refused() -> None:
        for _ in range(10):
            scenario.reconcile()
            scenario.play_cluster()

    with pytest.raises(Invalid):
        until_refused()
    refused = [e for e in scenario.recorder.events if e.reason == "RefusedByCluster"]
    assert refused
    assert "httproutes" in refused[0].message


def test_unschedulable_pods_are_reported_in_the_schedulers_words_and_given_up_in_the_end() -> None:
    scenario = deployed(Scenario())
    scenario.kubelet_works = False
    scenario.apply(spec(V2))
    scenario.tick()
    for deployment in scenario.cluster.all(DEPLOYMENT, NAMESPACE):
        if deployment["spec"]["template"]["spec"]["initContainers"][0]["args"][2] == V2:
            scenario.kubelet.unschedulable(deployment, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    scenario.tick()
    assert "Insufficient nvidia.com/gpu" in str(scenario.status.message)
    status = scenario.run_until(degraded)
    assert status.rejected[0].reason == "ProgressDeadlineExceeded"
    assert "Insufficient nvidia.com/gpu" in str(status.rejected[0].message)


def test_a_breaking_schema_is_stopped_before_any_traffic() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.reconcile(3)
    canary = scenario.status.canary
    assert canary is not None
    scenario.inspector.by_revision[str(canary.revision)] = {
        "inputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
    }
    status = scenario.run_until(degraded)
    assert status.rejected[0].reason == "SchemaIncompatible"
    assert "input x (FP32[-1,4]) is gone" in str(status.rejected[0].message)
    assert str(canary.revision) not in scenario.served


def test_allowed_schema_changes_go_through_the_gates() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2, rollout={**spec()["rollout"], "onSchemaChange": "Allow"}))
    scenario.inspector.default = {"inputs": [{"name": "z", "datatype": "FP32", "shape": [-1]}], "outputs": []}
    scenario.run_until(served_by(V2))


def test_router_replicas_never_overshoots_and_ends_at_full_size() -> None:
    scenario = Scenario()
    wanted = spec(V1, traffic={"router": "Replicas"})
    scenario.apply(wanted)
    scenario.run_until(healthy)
    scenario.apply(
        {**wanted, "model": {"uri": V2}, "rollout": {"analysis": QUICK, "gates": wanted["rollout"]["gates"]}}
    )
    for _ in range(200):
        scenario.tick()
        status = scenario.status
        if served_by(V2)(status):
            break
        if status.canary and status.traffic and status.rollout and status.rollout.stage == Stage.STEPPING:
            share = scenario.shares().get(str(status.canary.revision), 0)
            assert share <= (status.traffic.desired_weight or 0) / 100
    assert uri_of_stable(scenario.status) == V2
    assert scenario.status.ready == "4/4"


def test_router_replicas_says_which_weight_it_cannot_make() -> None:
    scenario = Scenario()
    wanted = spec(V1, replicas=1, traffic={"router": "Replicas"})
    scenario.apply({**wanted, "rollout": {}})
    scenario.run_until(healthy)
    scenario.apply({**wanted, "model": {"uri": V2}})
    status = scenario.run_until(degraded)
    stalled = find_condition(status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "WeightUnreachable"
    assert "at least 50" in stalled.message
    assert uri_of_stable(status) == V1


def test_a_spec_without_a_runtime_says_which_there_are() -> None:
    scenario = Scenario()
    scenario.apply(spec(V1, runtime="triton"))
    scenario.tick()
    stalled = find_condition(scenario.status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "NoSupportingRuntime"
    assert "onnxruntime" in stalled.message


def test_a_bad_spec_changes_nothing_of_what_serves() -> None:
    scenario = deployed(Scenario())
    before = scenario.shares()
    scenario.apply(spec(V2, runtime="triton"))
    for _ in range(10):
        scenario.tick()
    assert scenario.shares() == before
    assert scenario.status.phase == Phase.DEGRADED


def test_a_spec_of_a_newer_version_changes_nothing_until_it_can_be_read() -> None:
    scenario = under_way(Scenario())
    shares = scenario.shares()
    pods = [p["metadata"]["uid"] for p in scenario.cluster.all(POD, NAMESPACE)]
    newer = spec(V2)
    newer["rollout"]["gates"][0] = {"name": "vibes", "vibe": {"atLeast": "good"}}
    scenario.apply(newer)
    for _ in range(20):
        scenario.tick()
    stalled = find_condition(scenario.status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.reason, "spec.rollout.gates.0" in stalled.message) == ("InvalidSpec", True)
    assert scenario.shares() == shares, "the route stays, though nobody knows the router that is asked for"
    assert [p["metadata"]["uid"] for p in scenario.cluster.all(POD, NAMESPACE)] == pods
    assert scenario.status.ready == "4/4"
    scenario.apply(spec(V2))
    scenario.run_until(served_by(V2))


@pytest.mark.parametrize(
    ("where", "template"),
    [
        (
            "spec.template.env[TOKEN]",
            {"env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        ),
        ("spec.template.imagePullSecrets", {"imagePullSecrets": [{"name": "s"}]}),
    ],
)
def test_a_secret_that_its_owner_does_not_offer_is_not_borrowed(where: str, template: Object) -> None:
    scenario = deployed(Scenario())
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": NAMESPACE}}
    scenario.cluster.put(secret)
    scenario.apply(spec(V2, template=template))
    scenario.tick()
    stalled = find_condition(scenario.status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.reason, where in stalled.message) == ("SecretNotUsable", True)

    def offer(obj: Object) -> None:
        obj["metadata"]["labels"] = {"penstock.dev/usable": "true"}

    scenario.cluster.edit(Ref(SECRET, NAMESPACE, "s"), offer)
    scenario.run_until(served_by(V2))


def test_bytes_that_differ_after_users_saw_them_are_a_rollback() -> None:
    scenario = under_way(Scenario())
    canary = str(scenario.status.canary.revision if scenario.status.canary else "")

    def other_bytes(pod: Object) -> None:
        for state in pod["status"]["initContainerStatuses"]:
            told = state["state"]["terminated"]
            told["message"] = json.dumps({"digest": f"sha256:{64 * '0'}"})

    pods = scenario.cluster.all(POD, NAMESPACE, {LABEL_REVISION: canary})
    scenario.cluster.set_status(ref_of(pods[0]), _changed(pods[0], other_bytes)["status"])
    scenario.kubelet_works = False
    scenario.run_until(degraded)
    assert outcomes(scenario.status)[-1] == "RolledBack"
    assert scenario.status.history[0].reason == "SourceChanged"


def _changed(obj: Object, change: Callable[[Object], None]) -> Object:
    other: Object = copied(obj)
    change(other)
    return other


def test_editing_the_runtime_restarts_nothing() -> None:
    scenario = deployed(Scenario())
    pods = {p["metadata"]["uid"] for p in scenario.cluster.all(POD, NAMESPACE)}

    def upgrade(runtime: Object) -> None:
        runtime["spec"]["template"]["spec"]["containers"][0]["image"] = "runtime:newer"

    scenario.cluster.edit(Ref(CLUSTER_MODEL_RUNTIME, "", "onnxruntime"), upgrade)
    scenario.new_operator()
    for _ in range(10):
        scenario.tick()
    assert {p["metadata"]["uid"] for p in scenario.cluster.all(POD, NAMESPACE)} == pods


@pytest.mark.parametrize("kind", [DEPLOYMENT, SERVICE])
def test_a_child_deleted_by_hand_comes_back(kind: Kind) -> None:
    scenario = deployed(Scenario())
    for obj in scenario.cluster.all(kind, NAMESPACE):
        scenario.cluster.remove(Ref(kind, NAMESPACE, obj["metadata"]["name"]))
    status = scenario.run_until(lambda s: bool(scenario.cluster.all(kind, NAMESPACE)) and healthy(s))
    assert status.ready == "4/4"


def test_deleting_the_object_leaves_nothing_to_do() -> None:
    scenario = under_way(Scenario())
    scenario.cluster.remove(REF)
    written = len(scenario.cluster.writes)
    scenario.reconcile(3)
    assert scenario.cluster.writes[written:] == []
    assert KEY == (NAMESPACE, NAME)


def test_scaled_to_zero_is_suspended_and_comes_back() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V1, replicas=0))
    scenario.run_until(lambda s: s.ready == "0/0")
    assert scenario.status.phase == Phase.HEALTHY
    scenario.apply(spec(V1))
    assert scenario.run_until(lambda s: s.ready == "4/4").phase == Phase.HEALTHY
