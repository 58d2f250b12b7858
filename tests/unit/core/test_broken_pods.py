"""Pods of a canary that break: what is the model's fault and what is not, and that the end is always told."""

from __future__ import annotations

from typing import Any

from penstock.api.status import Phase
from penstock.core.objects import LABEL_REVISION, POD, Object, Ref, ref_of
from penstock.ports import Conflict
from tests.scenario import NAMESPACE, Behaviour, Scenario, outcomes, spec
from tests.unit.core.test_story import V1, V2, degraded, deployed, served_by
from tests.unit.core.test_trouble import stepping, under_way


def canary_pods(scenario: Scenario) -> list[Object]:
    canary = scenario.status.canary
    assert canary is not None
    return scenario.cluster.all(POD, NAMESPACE, {LABEL_REVISION: str(canary.revision)})


def crash(scenario: Scenario, message: str) -> None:
    scenario.kubelet_works = False
    for pod in canary_pods(scenario):
        server = pod["status"]["containerStatuses"][0]
        server |= {
            "ready": False,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "message": message}},
        }
        for condition in pod["status"]["conditions"]:
            condition["status"] = "True" if condition["type"] == "PodScheduled" else "False"
        scenario.cluster.set_status(ref_of(pod), pod["status"])


def test_a_pod_that_ends_with_a_long_story_is_rolled_back_all_the_same() -> None:
    scenario = under_way(Scenario())
    crash(scenario, "x" * 2500)
    scenario.run_until(degraded)
    assert outcomes(scenario.status)[-1] == "RolledBack"
    assert len(scenario.status.message or "") <= 2048


def test_an_evicted_pod_is_the_nodes_affair() -> None:
    scenario = under_way(Scenario(), at_least=5)
    (pod,) = canary_pods(scenario)
    ended = {"terminated": {"exitCode": 137, "reason": "Error"}}
    gone: dict[str, Any] = {
        "phase": "Failed",
        "reason": "Evicted",
        "containerStatuses": [{"name": "server", "ready": False, "restartCount": 0, "state": ended}],
    }
    scenario.cluster.set_status(ref_of(pod), gone)
    scenario.reconcile(3)
    assert scenario.status.canary is not None
    scenario.cluster.remove(ref_of(pod))
    scenario.run_until(served_by(V2))


def test_a_pod_that_runs_and_is_not_ready_for_a_moment_is_not_broken() -> None:
    scenario = under_way(Scenario(), at_least=5)
    (pod,) = canary_pods(scenario)
    status = pod["status"]
    for condition in status["conditions"]:
        if condition["type"] == "Ready":
            condition["status"] = "False"
    server = status["containerStatuses"][0]
    server["ready"] = False
    server["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    scenario.cluster.set_status(ref_of(pod), status)
    scenario.reconcile(3)
    assert scenario.status.canary is not None
    scenario.run_until(served_by(V2))


def test_a_first_revision_that_breaks_has_nothing_to_go_back_to() -> None:
    scenario = Scenario()
    scenario.gateway_works = False
    scenario.apply(spec(V1))
    scenario.run_until(lambda status: status.rollout is not None and status.rollout.stage == "Promoting")
    crash(scenario, "out of luck")
    for _ in range(5):
        scenario.reconcile()
        scenario.clock.advance(5)
    assert scenario.status.rejected == ()
    scenario.kubelet_works = scenario.gateway_works = True
    scenario.run_until(served_by(V1))


def test_the_end_is_told_even_where_an_action_meets_a_conflict() -> None:
    scenario = deployed(Scenario(), v2=Behaviour(errors=0.9))
    scenario.apply(spec(V2))
    scenario.run_until(stepping(5))
    met: list[str] = []

    def meddle(verb: str, ref: Ref) -> None:
        if verb == "apply" and scenario.status.phase == Phase.DEGRADED and not met:
            met.append(str(ref))
            raise Conflict("somebody was faster")

    scenario.cluster.before_write = meddle
    scenario.run_until(degraded)
    scenario.tick()
    assert met, "the first action after the rollback met a conflict"
    assert scenario.recorder.reasons().count("RolledBack") == 1
