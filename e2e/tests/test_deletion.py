"""Deleting a ModelDeployment takes everything with it; removing the operator takes nothing."""

from __future__ import annotations

from e2e.tests.given import Given
from e2e.tests.then import Then
from e2e.tests.when import When


def test_deleting_the_model_mid_canary_leaves_nothing(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    given.users()
    when.applies(model="good-v2", rollout={"analysis": {"soak": "10m"}})
    then.weight(20).within(90)
    then.evidence_exists().within(30)
    then.has_all_of(
        "Deployment", "Service", "ConfigMap", "Secret", "ControllerRevision", "HTTPRoute", "RolloutAnalysis"
    )
    when.deletes_the_model()
    then.nothing_is_left().within(90)
    then.nothing_is_left().for_the_next(5)
