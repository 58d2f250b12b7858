"""A rollout that cannot go on says why, and does not wait for ever in silence."""

from __future__ import annotations

import pytest

from penstock.api.conditions import find_condition
from penstock.api.status import Phase
from penstock.core.objects import POD, ref_of
from penstock.ports import ProbeFailed
from tests.scenario import NAMESPACE, Scenario, outcomes, spec
from tests.unit.core.test_retiring import minutes, revision_of
from tests.unit.core.test_story import V2, degraded, deployed, served_by
from tests.unit.core.test_trouble import stepping

NO_ROOM = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def full_nodes(scenario: Scenario) -> None:
    """Pods that run go on; none that is new finds a node."""
    play = scenario.play_cluster

    def without_room() -> None:
        running = {p["metadata"]["name"] for p in scenario.cluster.all(POD, NAMESPACE) if "podIP" in p["status"]}
        play()
        for pod in scenario.cluster.all(POD, NAMESPACE):
            if pod["metadata"]["name"] not in running:
                words = {"reason": "Unschedulable", "message": NO_ROOM}
                condition = {"type": "PodScheduled", "status": "False", **words}
                scenario.cluster.set_status(ref_of(pod), {"phase": "Pending", "conditions": [condition]})

    scenario.play_cluster = without_room  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("steps", "desired", "applied", "have"), [((5, 50), 50, 5, "1 of 2"), ((25,), 100, 25, "1 of 4")]
)
def test_pods_that_a_higher_weight_needs_and_that_find_no_node(
    steps: tuple[int, ...], desired: int, applied: int, have: str
) -> None:
    scenario = deployed(Scenario())
    rollout = {**spec()["rollout"], "steps": [{"weight": w} for w in steps]}
    scenario.apply(spec(V2, rollout=rollout))
    scenario.run_until(stepping(applied))
    full_nodes(scenario)
    scenario.run_until(lambda s: s.traffic is not None and s.traffic.desired_weight == desired)
    minutes(scenario, 2)
    status = scenario.status
    assert status.phase == Phase.PROGRESSING
    assert f"{revision_of(scenario, V2)} has {have} pods ready. Unschedulable: {NO_ROOM}" in str(status.message)
    minutes(scenario, 10)
    status = scenario.status
    stalled = find_condition(status.conditions, "Stalled")
    assert stalled is not None
    assert stalled.reason == "ProgressDeadlineExceeded"
    assert f"waits for pods for {desired} %: {have} are ready after 10m. Unschedulable: {NO_ROOM}" in stalled.message
    assert f"The weight stays at {applied} %." in stalled.message
    assert outcomes(status) == ["Promoted"], "the canary was proven so far: nothing is taken back"
    assert scenario.shares()[revision_of(scenario, V2)] == applied / 100
    del scenario.play_cluster
    scenario.run_until(served_by(V2))


def test_paused_says_too_why_pods_of_the_canary_do_not_start() -> None:
    scenario = deployed(Scenario())
    full_nodes(scenario)
    scenario.apply(spec(V2))
    scenario.tick()
    scenario.apply(spec(V2, paused=True))
    scenario.tick()
    assert scenario.status.phase == Phase.PAUSED
    assert f"has 0 of 1 pods ready. Unschedulable: {NO_ROOM}" in str(scenario.status.message)


def cannot_compare(scenario: Scenario) -> None:
    async def refuse(*_: object) -> object:
        raise ProbeFailed("connection refused")

    scenario.inspector.metadata = refuse  # type: ignore[method-assign, assignment]


def test_a_canary_that_cannot_be_compared_with_stable_does_not_wait_for_ever() -> None:
    scenario = deployed(Scenario())
    cannot_compare(scenario)
    scenario.apply(spec(V2))
    minutes(scenario, 9)
    assert "the schemas cannot be compared: connection refused" in str(scenario.status.message)
    assert not degraded(scenario.status)
    status = scenario.run_until(degraded, ticks=36)
    refused = status.rejected[0]
    assert refused.reason == "ProgressDeadlineExceeded"
    assert refused.message == ("its pods are ready, but for 10m the schemas cannot be compared: connection refused")
    assert set(scenario.served) == {str(status.stable.revision) if status.stable else ""}


def test_a_canary_that_was_ready_in_the_last_moment_has_its_time_to_be_compared() -> None:
    scenario = deployed(Scenario())
    scenario.kubelet_works = False
    scenario.apply(spec(V2))
    minutes(scenario, 9)
    scenario.kubelet_works = True
    metadata = scenario.inspector.metadata
    cannot_compare(scenario)
    minutes(scenario, 3)
    assert not degraded(scenario.status)
    scenario.inspector.metadata = metadata  # type: ignore[method-assign]
    scenario.run_until(served_by(V2))


def test_time_on_hold_does_not_count_for_pods_that_are_waited_for() -> None:
    scenario = deployed(Scenario())
    rollout = {**spec()["rollout"], "steps": [{"weight": 5}, {"weight": 50}]}
    scenario.apply(spec(V2, rollout=rollout))
    scenario.run_until(stepping(5))
    full_nodes(scenario)
    scenario.run_until(lambda s: s.traffic is not None and s.traffic.desired_weight == 50)
    scenario.apply(spec(V2, rollout=rollout, paused=True))
    minutes(scenario, 30)
    scenario.apply(spec(V2, rollout=rollout))
    minutes(scenario, 8)
    assert scenario.status.phase == Phase.PROGRESSING
    assert find_condition(scenario.status.conditions, "Stalled") is None
    minutes(scenario, 4)
    assert degraded(scenario.status)
