"""Upgrading the operator or the runtime's image restarts no model; what runs is as it was rendered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster.engine import docker
from e2e.cluster.load import load
from e2e.tests.given import Given
from e2e.tests.installation import OPERATOR_IMAGE, RUNTIME_IMAGE, Installation
from e2e.tests.then import Then
from e2e.tests.when import When

NEXT = "next"


@pytest.fixture
def next_images() -> dict[str, dict[str, str]]:
    """Both images under another tag, in every node; as values of the chart."""
    values = {}
    for name, image in (("operator", OPERATOR_IMAGE), ("runtime", RUNTIME_IMAGE)):
        repository = image.rpartition(":")[0]
        docker("tag", image, f"{repository}:{NEXT}")
        load([f"{repository}:{NEXT}"])
        values[name] = {"repository": repository, "tag": NEXT}
    return values


@pytest.fixture
def upgraded(installation: Installation) -> Iterator[Installation]:
    """The operator is as usual again afterwards."""
    yield installation
    installation.install(installation.usual())


def test_other_images_restart_no_model_and_the_next_revision_takes_them(
    next_images: dict[str, dict[str, str]], upgraded: Installation, given: Given, when: When, then: Then
) -> None:
    given.model("good-v1").is_healthy()
    users = given.users(rate=50)
    before = then.pods()
    when.operator_is_upgraded({"image": next_images})
    then.operator_runs(f":{NEXT}")
    then.images_of_pods(RUNTIME_IMAGE)
    then.served_by("good-v1").for_the_next(10)
    then.pods_are_still(before)
    when.applies(model="good-v2", rollout={"steps": []})
    then.served_by("good-v2").within(90)
    then.deployments_of(1).within(60)
    then.images_of_pods(f"{next_images['runtime']['repository']}:{NEXT}")
    then.no_request_failed(users)


def test_models_serve_on_without_the_operator_and_are_found_again(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    users = given.users(rate=50)
    before = then.pods()
    when.operator_is_uninstalled()
    then.ready_pods(len(before)).for_the_next(10)
    when.operator_is_installed_again()
    when.applies(replicas=3)
    then.ready_pods(3).within(60)
    then.served_by("good-v1").within(30)
    assert before.items() <= then.pods().items()
    then.no_request_failed(users)
