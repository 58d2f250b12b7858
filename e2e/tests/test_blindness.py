"""Without Prometheus nothing moves: neither forward nor back."""

from __future__ import annotations

from e2e.tests.given import Given
from e2e.tests.then import Then
from e2e.tests.when import When


def test_prometheus_going_away_freezes_the_canary_until_it_is_back(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2", rollout={"analysis": {"soak": "15s"}})
    then.weight(20).within(90)
    when.prometheus_goes()
    then.condition("Measured", "False", "CannotMeasure").within(90)
    then.phase("Progressing").now()
    then.weight_is(20).for_the_next(20)
    then.message("CannotMeasure since .* The weight stays").now()
    then.phases_were_only("Progressing")
    then.weights_were(20)
    when.prometheus_comes_back()
    then.condition("Measured", "True").within(60)
    then.served_by("good-v2").within(120)
    then.weights_were(20, 50, 100, 0)
    then.no_request_failed(users)
