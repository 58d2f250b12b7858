"""A human holds a rollout, or the operator is blind: what stands still, and what does not happen when it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.status import Phase, Status
from penstock.core.objects import DEPLOYMENT
from tests.scenario import NAMESPACE, Behaviour, Scenario, digest_of, outcomes, spec
from tests.unit.core.test_story import V2, deployed, healthy, served_by
from tests.unit.core.test_trouble import stepping, uri_of_stable

V3 = "http://files/v3.onnx"
DAY = 86400.0


def rollout(**changes: Any) -> dict[str, Any]:
    return {**spec()["rollout"], **changes}


def weight(status: Status) -> int:
    return (status.traffic.applied_weight if status.traffic else 0) or 0


@pytest.mark.parametrize("on_inconclusive", ["Promote", "Rollback", "Hold"])
def test_three_days_of_pause_are_no_days_without_a_decision(on_inconclusive: str) -> None:
    scenario = deployed(Scenario(requests_per_second=2))
    plan = rollout(maxDuration="24h", onInconclusive=on_inconclusive)
    scenario.apply(spec(V2, rollout=plan))
    scenario.run_until(stepping(5))
    scenario.apply(spec(V2, rollout=plan, paused=True))
    scenario.tick()
    scenario.clock.advance(3 * DAY)
    scenario.tick()
    scenario.apply(spec(V2, rollout=plan))
    scenario.forget_weights()
    for _ in range(5):
        scenario.tick()
    assert (scenario.status.phase, scenario.weights_seen) == (Phase.PROGRESSING, [5])
    assert outcomes(scenario.status) == ["Promoted"], "nothing was decided by the calendar"


def test_a_pause_step_may_take_longer_than_the_whole_rollout() -> None:
    scenario = deployed(Scenario())
    plan = rollout(steps=[{"weight": 25}, {"pause": {}}, {"weight": 50}], maxDuration="1h", onInconclusive="Rollback")
    scenario.apply(spec(V2, rollout=plan))
    scenario.run_until(lambda status: status.phase == Phase.PAUSED)
    scenario.clock.advance(3 * DAY)
    scenario.tick()
    assert scenario.status.phase == Phase.PAUSED
    scenario.apply(spec(V2, rollout={**plan, "steps": [{"weight": 25}, {"weight": 50}]}))
    assert uri_of_stable(scenario.run_until(served_by(V2))) == V2


def test_a_model_without_pods_is_not_late() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2, replicas=0))
    for _ in range(3):
        scenario.tick()
    scenario.clock.advance(DAY)
    scenario.tick()
    assert scenario.status.rejected == ()
    scenario.apply(spec(V2))
    scenario.run_until(served_by(V2))


def test_a_hold_is_as_long_as_it_was_seen() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2, rollout=rollout(steps=[{"weight": 25}, {"hold": "10m"}])))
    scenario.run_until(stepping(25))
    scenario.run_until(lambda status: status.rollout is not None and status.rollout.step_index == 1)
    scenario.tick()
    began = scenario.clock.now()
    scenario.metrics.down = "connection refused"
    for _ in range(100):
        scenario.tick()
    scenario.metrics.down = None
    scenario.run_until(lambda status: status.rollout is None or status.rollout.stage == "Promoting")
    assert scenario.clock.now() - began >= 500 + 590


def test_editing_the_steps_down_is_no_promotion() -> None:
    scenario = deployed(Scenario(requests_per_second=2))
    scenario.apply(spec(V2))
    scenario.run_until(stepping(5))
    scenario.forget_weights()
    scenario.apply(spec(V2, rollout=rollout(steps=[{"weight": 1}, {"weight": 2}])))
    for _ in range(5):
        scenario.tick()
    assert scenario.weights_seen[-1] == 2
    assert uri_of_stable(scenario.status) != V2


def test_pods_whose_time_is_over_go_while_the_next_rollout_is_paused() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2, rollout=rollout(scaleDownDelay="30m")))
    scenario.run_until(served_by(V2))
    plan = rollout(scaleDownDelay="30m")
    scenario.apply(spec(V3, rollout=plan))
    scenario.run_until(stepping(5))
    scenario.apply(spec(V3, rollout=plan, paused=True))
    scenario.tick()
    assert scenario.status.retiring
    scenario.clock.advance(3600)
    scenario.reconcile(10)
    assert scenario.status.retiring == ()
    assert scenario.reconcile() is None, "nothing is due until somebody acts"
    assert scenario.status.phase == Phase.PAUSED


def test_a_suspended_model_that_wakes_up_with_a_new_version_is_judged_like_any() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(replicas=0))
    scenario.run_until(lambda status: status.ready == "0/0")
    scenario.behaviours[V2] = Behaviour(errors=0.5)
    scenario.forget_weights()
    scenario.apply(spec(V2))
    scenario.kubelet_works = False
    for _ in range(5):
        scenario.reconcile()
        only_the_canary(scenario)
        scenario.clock.advance(5)
    assert scenario.weights_seen == [0], "a stable that merely starts is waited for"
    scenario.kubelet_works = True
    scenario.run_until(lambda status: len(status.history) == 2)
    assert outcomes(scenario.status)[-1] == "RolledBack"
    assert max(scenario.weights_seen) <= 50


def only_the_canary(scenario: Scenario) -> None:
    for deployment in scenario.cluster.all(DEPLOYMENT, NAMESPACE):
        uri = deployment["spec"]["template"]["spec"]["initContainers"][0]["args"][2]
        scenario.kubelet.make_ready(deployment, None if uri == V2 else 0, digest=digest_of(uri))


def test_a_stable_that_hangs_for_long_is_down() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.kubelet_works = False
    for _ in range(80):
        scenario.reconcile(3)
        only_the_canary(scenario)
        scenario.play_cluster()
        scenario.clock.advance(5)
    assert uri_of_stable(scenario.run_until(healthy)) == V2
