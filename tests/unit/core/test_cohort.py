"""Stable counts labels for a rollout from when the canary gets requests: labels are compared on one stretch of time.

Labels come late, and how late may depend on the answer, so labels of older requests are other labels.
"""

from __future__ import annotations

from typing import Any

from penstock.api.status import Stage
from penstock.core.objects import CONFIG_MAP, LABEL_REVISION, POD, Ref
from penstock.core.observe import ANNOTATION_COHORT
from tests.scenario import NAMESPACE, Scenario, spec
from tests.unit.core.test_story import V2, deployed
from tests.unit.core.test_trouble import stepping


def started(**rollout: Any) -> Scenario:
    """Stable serves, and a canary is asked for."""
    scenario = deployed(Scenario())
    scenario.apply(spec(V2, rollout={**spec()["rollout"], **rollout}))
    return scenario


def told(scenario: Scenario, side: str) -> tuple[set[str | None], set[str | None]]:
    """What the ConfigMap of stable or canary says, and what its pods are annotated with."""
    seen = getattr(scenario.status, side)
    labels = {LABEL_REVISION: str(seen.revision)}
    pods = scenario.cluster.all(POD, NAMESPACE, labels)
    return (
        {c["data"].get("cohort") for c in scenario.cluster.all(CONFIG_MAP, NAMESPACE, labels)},
        {(p["metadata"].get("annotations") or {}).get(ANNOTATION_COHORT) for p in pods},
    )


def rollout_id(scenario: Scenario) -> str:
    rollout = scenario.status.rollout
    assert rollout is not None
    return str(rollout.id)


def test_stable_is_told_nothing_while_the_canary_loads() -> None:
    scenario = started()
    scenario.gateway_works = scenario.kubelet_works = False
    for _ in range(20):
        scenario.tick()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.stage == Stage.LOADING
    assert told(scenario, "stable") == ({None}, {None})
    assert told(scenario, "canary")[0] == {rollout_id(scenario)}


def test_stable_is_told_nothing_while_the_canary_holds_without_weight() -> None:
    scenario = started(steps=[{"hold": "30m"}, {"weight": 50}])
    scenario.run_until(lambda status: bool(status.rollout and status.rollout.stage == Stage.STEPPING))
    for _ in range(100):
        scenario.tick()
    assert told(scenario, "stable") == ({None}, {None})
    scenario.apply(spec(V2, rollout={**spec()["rollout"], "steps": [{"weight": 50}]}))
    scenario.run_until(stepping(50))
    assert told(scenario, "stable") == ({rollout_id(scenario)}, {rollout_id(scenario)})


def test_every_ready_pod_of_stable_is_told_before_the_canary_gets_a_request() -> None:
    scenario = started()
    seen: list[tuple[int, set[str | None]]] = []
    for _ in range(60):
        scenario.reconcile()
        weight = (scenario.status.traffic.applied_weight if scenario.status.traffic else 0) or 0
        seen.append((weight, told(scenario, "stable")[1]))
        scenario.play_cluster()
        if weight:
            break
    (before, after) = seen[-2:]
    assert before == (0, {rollout_id(scenario)})
    assert after == (5, {rollout_id(scenario)})


def test_a_pod_that_cannot_be_told_yet_holds_the_first_weight_for_a_moment_only() -> None:
    """It became ready between two looks: the operator tells it, and comes again by itself."""
    scenario = started()
    while told(scenario, "stable")[1] == {None}:
        scenario.reconcile()
        scenario.play_cluster()
    stable = scenario.status.stable
    assert stable is not None
    pod = scenario.cluster.all(POD, NAMESPACE, {LABEL_REVISION: str(stable.revision)})[0]
    meta = {k: v for k, v in pod["metadata"].items() if k not in ("annotations", "uid", "resourceVersion")}
    scenario.cluster.put({**pod, "metadata": {**meta, "name": "late"}})
    scenario.cluster.set_status(Ref(POD, NAMESPACE, "late"), pod["status"])
    due = scenario.reconcile()
    assert not stepping(5)(scenario.status)
    assert due is not None
    assert due - scenario.clock.now() <= 1
    scenario.reconcile()
    assert stepping(5)(scenario.status)


def test_pods_of_stable_that_start_later_read_the_cohort_from_their_config_map() -> None:
    scenario = started()
    scenario.run_until(stepping(5))
    assert told(scenario, "stable")[0] == {rollout_id(scenario)}
    scenario.apply(spec(V2, replicas=6))
    scenario.run_until(stepping(25))
    assert told(scenario, "stable") == ({rollout_id(scenario)}, {rollout_id(scenario)})
