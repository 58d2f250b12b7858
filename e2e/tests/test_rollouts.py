"""The main job: a good model is promoted, a bad one rolled back, and the messages say why."""

from __future__ import annotations

from e2e.tests.given import Given
from e2e.tests.manifests import ACCURACY, ERRORS, LATENCY
from e2e.tests.then import Then
from e2e.tests.when import When

ROLLOUT_SECONDS = 150


def test_a_good_model_is_promoted_step_by_step(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2")
    then.served_by("good-v2").within(ROLLOUT_SECONDS)
    then.weights_were(0, 20, 50, 100, 0)
    then.route_weights_were(20, 50, 100)
    then.steps_were(0, 1)
    then.phases_were_only("Healthy", "Pending", "Progressing")
    then.outcomes_were("Promoted", "Promoted")
    then.deployments_of(1).within(60)
    then.no_request_failed(users)


def test_an_inaccurate_model_is_rolled_back_and_stays_refused(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="scrambled")
    then.rolled_back(gate="accuracy").within(ROLLOUT_SECONDS)
    then.still_served_by("good-v1").now()
    then.rejection_says("no user impact", "Rolled back", "accuracy", r"\d+ and \d+ labels", "Fix the spec")
    then.condition("Available", "True").now()
    then.condition("Stalled", "True").now()
    then.weights_were(0, 20, 0)
    then.deployments_of(1).within(90)
    then.route_weights_were(20, 0)
    then.phase("Degraded").for_the_next(10)
    then.no_request_failed(users)


def test_a_slow_model_is_rolled_back_by_its_latency(given: Given, when: When, then: Then) -> None:
    given.model("good-v1", rollout={"gates": [dict(LATENCY)]}).is_healthy()
    users = given.users(labels=False)
    when.applies(model="slow")
    then.rolled_back(gate="latency").within(ROLLOUT_SECONDS)
    then.still_served_by("good-v1").now()
    then.rejection_says("latency", r"\d ms", r"\d+ and [\d,]+ requests")
    then.weights_were(0, 20, 0)
    then.no_request_failed(users)


def test_a_model_that_answers_400_to_everybody_is_rolled_back(given: Given, when: When, then: Then) -> None:
    given.model("good-v1", rollout={"gates": [dict(ERRORS)], "onSchemaChange": "Allow"}).is_healthy()
    users = given.users(labels=False)
    when.applies(model="doubles")
    then.rolled_back(gate="errors").within(ROLLOUT_SECONDS)
    then.still_served_by("good-v1").now()
    then.rejection_says("errors", "requests")
    then.weights_were(0, 20, 0)
    tally = users.stop()
    assert tally.failed > 0, "the story is pointless if the canary answered well"
    assert all(failure.split()[1] == "400" for failure in tally.failures), tally.failures


def test_a_paused_rollout_stays_where_it_is_until_it_is_resumed(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2", rollout={"analysis": {"soak": "5s"}})
    then.weight(20).within(ROLLOUT_SECONDS)
    when.applies(paused=True)
    then.phase("Paused").within(10)
    then.weight_is(20).for_the_next(15)
    when.applies(paused=False)
    then.served_by("good-v2").within(ROLLOUT_SECONDS)
    then.weights_were(20, 50, 100, 0)
    then.no_request_failed(users)


def test_labels_that_never_come_hold_a_rollout_but_decide_nothing(given: Given, when: When, then: Then) -> None:
    given.model("good-v1", rollout={"gates": [dict(ACCURACY)]}).is_healthy()
    given.users(labels=False)
    when.applies(model="scrambled")
    then.weight(20).within(ROLLOUT_SECONDS)
    then.message("accuracy: no labels yet").within(30)
    then.weight_is(20).for_the_next(15)
    then.phase("Progressing").now()


def test_going_back_to_a_recently_healthy_model_takes_seconds_and_no_steps(
    given: Given, when: When, then: Then
) -> None:
    given.model("good-v1", rollout={"scaleDownDelay": "10m"}).is_healthy()
    users = given.users()
    when.applies(model="good-v2")
    then.served_by("good-v2").within(ROLLOUT_SECONDS)
    when.applies(model="good-v1")
    then.served_by("good-v1").within(15)
    then.weights_were(0, 100, 0)
    then.no_request_failed(users)


def test_a_third_model_takes_the_place_of_a_canary_under_way(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2", rollout={"analysis": {"soak": "10m"}})
    then.weight(20).within(ROLLOUT_SECONDS)
    when.applies(model="scrambled", rollout={"analysis": {"soak": "0s"}})
    then.rolled_back(gate="accuracy").within(ROLLOUT_SECONDS)
    then.outcomes_were("Promoted", "Superseded", "RolledBack")
    then.still_served_by("good-v1").now()
    then.no_request_failed(users)


def test_the_spec_going_back_mid_canary_cancels_the_rollout(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users()
    when.applies(model="good-v2", rollout={"analysis": {"soak": "10m"}})
    then.weight(20).within(ROLLOUT_SECONDS)
    when.applies(model="good-v1")
    then.served_by("good-v1").within(20)
    then.outcomes_were("Promoted", "Cancelled")
    then.weights_were(20, 0)
    then.no_request_failed(users)
