"""No Prometheus and no gateway: one `helm install` is enough."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.tests.given import Given
from e2e.tests.installation import Installation
from e2e.tests.then import Then
from e2e.tests.when import When

REPLICAS = {"router": "Replicas", "parentRefs": None, "hostnames": None}


@pytest.fixture(autouse=True)
def without_prometheus(installation: Installation) -> Iterator[None]:
    """The operator knows of no Prometheus: it asks the pods themselves."""
    with installation.with_values({"prometheus": {"url": ""}, "scrapeInterval": 2}):
        yield


def test_a_good_model_is_promoted_and_a_bad_one_rolled_back(given: Given, when: When, then: Then) -> None:
    given.model("good-v1", traffic=REPLICAS, replicas=4).is_healthy()
    users = given.users(rate=60)
    when.applies(model="good-v2")
    then.served_by("good-v2").within(150)
    then.weights_were(0, 20, 50, 100, 0)
    then.steps_were(0, 1)
    when.applies(model="scrambled")
    then.rolled_back(gate="accuracy").within(150)
    then.still_served_by("good-v2").now()
    then.weights_were(0, 20, 0)
    then.there_is_no("HTTPRoute")
    assert users.stop().ok > 1000
