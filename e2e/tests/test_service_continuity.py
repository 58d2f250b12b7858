"""Users notice nothing: not one request fails while traffic moves, by the load generator's own count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from e2e.load.process import LoadProcess, Target
from e2e.tests.given import Given
from e2e.tests.manifests import MODEL, hostname
from e2e.tests.story import Story
from e2e.tests.then import Then
from e2e.tests.when import When
from e2e.tests.zoo import iris

RATE = 50
BUSY_RATE = 200
BUSY_REQUESTS = 20_000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The rows to send."""
    file = tmp_path / "iris.npz"
    np.savez(file, rows=iris().rows, labels=iris().labels)
    return file


@pytest.fixture
def labellers(given: Given) -> Iterator[None]:
    """Others, who also send labels: without them no accuracy gate decides."""
    given.model("good-v1").is_healthy()
    others = given.users(rate=RATE)
    yield
    others.stop()


def test_no_request_fails_during_a_promotion_and_a_rollback(
    labellers: None, story: Story, data: Path, when: When, then: Then
) -> None:
    target = Target(f"http://127.0.0.1:{story.gateway.port}", MODEL, data, host=hostname(story.namespace))
    with LoadProcess(target, RATE) as users:
        when.applies(model="good-v2")
        then.served_by("good-v2").within(150)
        when.applies(model="scrambled")
        then.rolled_back(gate="accuracy").within(150)
        then.deployments_of(1).within(90)
        report = users.stop()
    story.tell(f"then   {report['ok']} of {report['sent']} requests answered: {report['failures'] or 'none failed'}")
    assert report["ok"] > RATE * 30
    assert report["failed"] == 0, report["last_failures"]


def test_no_request_fails_while_pods_come_and_go(
    story: Story, data: Path, given: Given, when: When, then: Then
) -> None:
    given.model("good-v1", replicas=1).is_healthy()
    target = Target(f"http://127.0.0.1:{story.gateway.port}", MODEL, data, host=hostname(story.namespace))
    given.users(rate=20, labels=False).stop()  # from here on the gateway knows the route
    with LoadProcess(target, BUSY_RATE) as users:
        when.applies(replicas=5)
        then.ready_pods(5).within(120)
        before = then.pods()
        when.restarts_the_pods()
        then.pods_are_others(before).within(180)
        then.ready_pods(5).within(60)
        when.applies(replicas=1)
        then.ready_pods(1).within(120)
        while users.latest["sent"] < BUSY_REQUESTS:
            users.next_second()
        report = users.stop()
    story.tell(f"then   {report['ok']} of {report['sent']} requests answered: {report['failures'] or 'none failed'}")
    assert report["ok"] >= BUSY_REQUESTS
    assert report["failed"] == 0, report["last_failures"]
