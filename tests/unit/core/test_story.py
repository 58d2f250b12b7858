"""Whole rollouts, from apply to the end, over the real reconciler and a fake cluster."""

from __future__ import annotations

from collections.abc import Callable

from penstock.api.status import Phase, Status
from penstock.core.objects import DEPLOYMENT, ROLLOUT_ANALYSIS
from tests.scenario import NAMESPACE, Behaviour, Scenario, outcomes, spec

V1, V2 = "http://files/v1.onnx", "http://files/v2.onnx"


def healthy(status: Status) -> bool:
    return status.phase == Phase.HEALTHY


def degraded(status: Status) -> bool:
    return status.phase == Phase.DEGRADED


def served_by(uri: str) -> Callable[[Status], bool]:
    return lambda status: healthy(status) and status.stable is not None and status.stable.uri == uri


def deployed(scenario: Scenario, **behaviours: Behaviour) -> Scenario:
    scenario.behaviours |= {f"http://files/{name}.onnx": b for name, b in behaviours.items()}
    scenario.apply(spec(V1))
    scenario.run_until(healthy)
    return scenario


def test_a_first_deployment_becomes_healthy_and_gets_all_traffic() -> None:
    scenario = Scenario()
    scenario.apply(spec(V1))
    status = scenario.run_until(healthy)
    assert status.ready == "4/4"
    assert status.canary is None
    assert outcomes(status) == ["Promoted"]
    assert list(scenario.shares().values()) == [1.0]


def test_a_good_model_goes_through_every_step_and_is_promoted() -> None:
    scenario = deployed(Scenario())
    scenario.forget_weights()
    scenario.apply(spec(V2))
    status = scenario.run_until(served_by(V2))
    assert scenario.weights_seen == [0, 5, 25, 50, 100, 0]
    assert outcomes(status) == ["Promoted", "Promoted"]
    analysis = scenario.cluster.all(ROLLOUT_ANALYSIS, NAMESPACE)[-1]
    assert analysis["status"]["phase"] == "Passed"


def test_an_inaccurate_model_is_rolled_back_and_stays_refused() -> None:
    scenario = deployed(Scenario(), v2=Behaviour(accuracy=0.2))
    scenario.apply(spec(V2))
    status = scenario.run_until(degraded)
    assert status.stable is not None
    assert status.stable.uri == V1
    assert outcomes(status) == ["Promoted", "RolledBack"]
    assert status.rejected[0].gate == "accuracy"
    for _ in range(30):
        scenario.tick()
    assert scenario.status.phase == Phase.DEGRADED
    assert len(scenario.cluster.all(DEPLOYMENT, NAMESPACE)) == 1


def test_errors_are_found_without_any_label() -> None:
    scenario = deployed(Scenario(), v2=Behaviour(errors=0.3))
    scenario.apply(spec(V2))
    status = scenario.run_until(degraded)
    assert status.rejected[0].gate == "errors"
    assert status.message is not None
    assert "no user impact" in status.message


def test_a_model_that_cannot_load_never_gets_a_request() -> None:
    scenario = deployed(Scenario(), v2=Behaviour(loads=False))
    scenario.apply(spec(V2))
    status = scenario.run_until(degraded)
    assert outcomes(status)[-1] == "Rejected"
    assert status.rejected[0].reason == "ModelLoadFailed"
    assert set(scenario.served) == {status.stable.revision if status.stable else ""}


def test_going_back_to_a_recent_revision_waits_for_no_gate() -> None:
    scenario = deployed(Scenario())
    scenario.apply(spec(V2))
    scenario.run_until(served_by(V2))
    scenario.forget_weights()
    scenario.apply(spec(V1))
    before = scenario.clock.now()
    scenario.run_until(served_by(V1))
    assert scenario.weights_seen == [0, 100, 0]
    assert scenario.clock.now() - before <= 20


def test_an_idle_model_causes_no_write() -> None:
    scenario = deployed(Scenario())
    for _ in range(5):
        scenario.tick()
    written = len(scenario.cluster.writes)
    for _ in range(60):
        scenario.tick()
    assert scenario.cluster.writes[written:] == []
