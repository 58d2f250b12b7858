"""The status may be lost: what matters was written elsewhere before it was acted upon."""

from __future__ import annotations

from e2e.tests.given import Given
from e2e.tests.then import Then
from e2e.tests.when import When


def test_a_canary_under_way_begins_anew_beside_the_same_stable(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2", rollout={"analysis": {"soak": "10s"}})
    then.weight(20).within(90)
    when.status_is_wiped()
    then.still_served_by("good-v1").within(30)
    then.served_by("good-v2").within(150)
    then.weights_were(0, 20, 50, 100, 0)
    then.outcomes_were("Promoted", "Promoted")
    then.no_request_failed(users)


def test_a_rejected_model_is_not_promoted_when_its_rejection_is_lost(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="scrambled")
    then.rolled_back(gate="accuracy").within(150)
    when.status_is_wiped()
    then.phase("Degraded").within(30)
    then.still_served_by("good-v1").now()
    then.phase("Degraded").for_the_next(15)
    then.weights_were(0)
    then.route_gave_everything_to_stable()
    then.no_request_failed(users)


def test_a_healthy_model_without_status_is_healthy_again(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users(rate=20)
    pods = then.pods()
    when.status_is_wiped()
    then.served_by("good-v1").within(30)
    then.weights_were(0)
    then.pods_are_still(pods)
    then.no_request_failed(users)
