"""The operator may die at any moment: the rollout comes to the same end, with no step skipped or repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from e2e.tests.expectation import Expectation
from e2e.tests.given import Given
from e2e.tests.installation import Installation
from e2e.tests.then import Then
from e2e.tests.when import When

MOMENTS: dict[str, Callable[[Then], Expectation]] = {
    "loading": lambda then: then.stage("Loading"),
    "weight written": lambda then: then.weight(20),
    "first step": lambda then: then.condition("Measured", "True"),
    "second step": lambda then: then.weight(50),
    "promoting": lambda then: then.stage("Promoting"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_deleting_the_operators_pod_changes_nothing(moment: str, given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2")
    MOMENTS[moment](then).within(90)
    when.operator_is_deleted()
    then.served_by("good-v2").within(150)
    then.weights_were(0, 20, 50, 100, 0)
    then.route_weights_were(20, 50, 100)
    then.steps_were(0, 1)
    then.outcomes_were("Promoted", "Promoted")
    then.no_request_failed(users)


def test_a_bad_model_is_rolled_back_though_the_operator_is_killed(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="scrambled")
    then.weight(20).within(90)
    when.operator_is_killed()
    then.rolled_back(gate="accuracy").within(150)
    then.weights_were(0, 20, 0)
    then.still_served_by("good-v1").now()
    then.no_request_failed(users)


@pytest.fixture
def standby(installation: Installation) -> Iterator[None]:
    """Two replicas, of which one leads."""
    with installation.with_values({**installation.usual(), "replicas": 2}):
        yield


def test_a_standby_takes_over_when_the_leader_is_killed(standby: None, given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2")
    then.weight(20).within(90)
    when.leader_is_killed()
    then.served_by("good-v2").within(150)
    then.weights_were(0, 20, 50, 100, 0)
    then.steps_were(0, 1)
    then.no_request_failed(users)
