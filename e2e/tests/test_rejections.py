"""Models that must never get a request: what cannot be fetched or loaded, and what would break the clients."""

from __future__ import annotations

from e2e.tests.given import Given
from e2e.tests.then import Then
from e2e.tests.when import When

REJECT_SECONDS = 90


def test_a_corrupt_model_is_rejected_before_any_traffic(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users(rate=20)
    when.applies(model="corrupt")
    then.rejected("ModelLoadFailed").within(REJECT_SECONDS)
    then.never_had_traffic("corrupt")
    then.still_served_by("good-v1").now()
    then.rejection_says("no user impact", "Rejected", "ModelLoadFailed")
    then.deployments_of(1).within(90)
    then.no_request_failed(users)


def test_other_input_names_are_stopped_with_the_difference(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users(rate=20)
    when.applies(model="renamed")
    then.rejected("SchemaIncompatible").within(REJECT_SECONDS)
    then.never_had_traffic("renamed")
    then.rejection_says("SchemaIncompatible", r"\bx\b", "features")
    then.still_served_by("good-v1").now()
    then.no_request_failed(users)


def test_bytes_that_differ_from_the_pinned_digest_are_refused(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    when.applies(model="good-v2", source={"digest": f"sha256:{'0' * 64}"})
    then.rejected("DigestMismatch").within(REJECT_SECONDS)
    then.rejection_says("DigestMismatch", "0{12}")
    then.never_had_traffic("good-v2")


def test_a_source_that_does_not_exist_is_named_when_time_is_up(given: Given, when: When, then: Then) -> None:
    given.model("good-v1", rollout={"progressDeadline": "20s"}).is_healthy()
    when.applies(source={"uri": "configmap://nowhere/model.onnx"})
    then.rejected("ProgressDeadlineExceeded").within(REJECT_SECONDS)
    then.still_served_by("good-v1").now()


def test_a_first_model_that_cannot_load_is_told_and_the_next_one_serves(given: Given, when: When, then: Then) -> None:
    given.model("corrupt")
    then.rejected("ModelLoadFailed").within(REJECT_SECONDS)
    then.condition("Available", "False").now()
    when.applies(model="good-v1")
    then.served_by("good-v1").within(REJECT_SECONDS)
