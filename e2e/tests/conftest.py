"""The stage: a cluster that is up, the operator installed by its chart, and a story of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from urllib3.exceptions import HTTPError

from e2e.cluster.places import kubeconfig
from e2e.cluster.ports import ports
from e2e.cluster.tools import tool
from e2e.tests import diagnosis, surroundings, zoo
from e2e.tests.cluster import Cluster, Refused
from e2e.tests.given import Given
from e2e.tests.installation import Installation
from e2e.tests.manifests import Gateway
from e2e.tests.story import Story
from e2e.tests.then import Then
from e2e.tests.when import When

_STORY = pytest.StashKey[Story]()


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of this checkout, or CLUSTER's."""
    if not kubeconfig().exists():
        pytest.exit(f"there is no cluster: {kubeconfig()} is missing; run `make e2e`, or e2e/cluster/up", 2)
    return Cluster(kubeconfig())


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> Gateway:
    """The gateway that comes with the add-on traefik."""
    return Gateway(surroundings.GATEWAY, surroundings.GATEWAY_NAMESPACE, ports()["gateway"])


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Installation:
    """The operator with the usual values, whatever it had before."""
    made = Installation(cluster, tool("helm"), surroundings.PROMETHEUS, surroundings.SCRAPE_SECONDS)
    made.restore_prometheus()
    made.install(made.usual())
    # training takes seconds, which no story should wait for
    for model in zoo.NAMES:
        zoo.model(model)
    return made


@pytest.fixture
def story(
    request: pytest.FixtureRequest, cluster: Cluster, installation: Installation, gateway: Gateway
) -> Iterator[Story]:
    """A namespace of its own; it goes afterwards. An expectation that nobody awaited fails the test."""
    made = Story(cluster, installation, gateway)
    made.open()
    request.node.stash[_STORY] = made
    print(f"\n  {request.node.name} ({made.namespace})", flush=True)
    yield made
    made.close()
    idle = [e.sentence for e in made.expectations if not e.checked]
    assert not idle, f"never awaited, so it proves nothing: {idle}"


@pytest.fixture
def given(story: Story) -> Given:
    """How the story begins."""
    return Given(story)


@pytest.fixture
def when(story: Story) -> When:
    """What happens."""
    return When(story)


@pytest.fixture
def then(story: Story) -> Then:
    """What must be seen."""
    return Then(story)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep the traces of a failed test before its namespace goes."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    story = item.stash.get(_STORY, None)
    if report.passed and report.when == "call" and story is not None:
        diagnosis.keep_timeline(story, item.nodeid)
    if report.failed and report.when == "call" and story is not None:
        report.sections.append(("traces", _traces(story, item.nodeid)))


def _traces(story: Story, test: str) -> str:
    """Where they are, or why there are none: a cluster that is gone must not end the whole run."""
    try:
        return f"objects, events and logs are in {diagnosis.collect(story, test)}"
    except (Refused, HTTPError, OSError) as error:
        return f"not all traces could be kept: {error}"
