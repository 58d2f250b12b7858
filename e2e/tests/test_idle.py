"""Nothing to do, nothing written: idle models cost the API server no write at all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import pytest

from e2e.tests.cluster import Cluster
from e2e.tests.expectation import Expectation
from e2e.tests.installation import NAMESPACE
from e2e.tests.manifests import changed, model_deployment, quick_spec
from e2e.tests.story import LABEL, Story

MODELS = 10
SECONDS = 300 if os.environ.get("E2E_LONG") else 120
OURS = frozenset(
    {
        "modeldeployments", "rolloutanalyses", "clustermodelruntimes", "httproutes", "deployments",
        "controllerrevisions", "services", "configmaps", "secrets", "pods", "events",
    }
)  # fmt: skip
"""Every resource the operator may write, its Lease aside."""
_WRITES = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@pytest.fixture
def alone(cluster: Cluster) -> None:
    """The namespaces of earlier stories are gone: they would be written to."""

    def problem() -> str:
        left = [n["metadata"]["name"] for n in cluster.all("Namespace", "", LABEL)]
        return f"still there: {left}" if left else ""

    Expectation("earlier stories are gone", problem).within(180)


@pytest.fixture
def healthy_models(alone: None, story: Story) -> list[str]:
    """Ten models that serve."""
    story.provide("good-v1")
    names = [f"model-{i}" for i in range(MODELS)]
    small = {"replicas": 1, "traffic": {"parentRefs": None, "hostnames": None, "router": "Replicas"}}
    spec = changed(quick_spec("good-v1", story.traffic()), small)
    for name in names:
        story.cluster.apply(model_deployment(story.namespace, spec, name))

    def problem() -> str:
        found = story.cluster.all("ModelDeployment", story.namespace)
        phases = {m["metadata"]["name"]: m.get("status", {}).get("phase") for m in found}
        waiting = {name: phases.get(name) for name in names if phases.get(name) != "Healthy"}
        return f"not Healthy yet: {waiting}" if waiting else ""

    Expectation(f"given  {MODELS} models are Healthy", problem, tell=story.tell).within(300)
    return names


def test_ten_healthy_models_cause_no_write(healthy_models: list[str], story: Story) -> None:
    cluster = story.cluster
    _settle(story)
    assert "APPLY modeldeployments" in _writes(cluster), "the API server's metrics do not tell of writes"
    versions, writes, lease = _versions(story), _writes(cluster), _lease_version(cluster)

    def problem() -> str:
        more = {key: n - writes.get(key, 0) for key, n in _writes(cluster).items() if n != writes.get(key, 0)}
        return f"writes by verb and resource: {more}" if more else ""

    Expectation(f"then   no write to {len(OURS)} kinds of objects", problem, tell=story.tell).for_the_next(SECONDS)
    assert _versions(story) == versions
    assert _lease_version(cluster) != lease, "the operator did not even renew its Lease: it was not there at all"


def _settle(story: Story) -> None:
    """Kubernetes' own controllers write for a while after the last pod is ready (events, endpoints, statuses)."""
    last: list[Mapping[str, float]] = []

    def problem() -> str:
        last.append(_writes(story.cluster))
        quiet = len(last) >= 20 and last[-1] == last[-20]
        return "" if quiet else "something still writes"

    Expectation("given  nobody has written for 10 s", problem, tell=story.tell).within(120)


def _writes(cluster: Cluster) -> Mapping[str, float]:
    """Writes so far of anybody at all, by verb and resource, from the API server's own metrics."""
    found: dict[str, float] = {}
    for match in _WRITES.finditer(cluster.raw("GET", "metrics").decode()):
        labels = dict(_LABEL.findall(match["labels"]))
        if labels["resource"] in OURS and labels["verb"] in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
            key = f"{labels['verb']} {labels['resource']}"
            found[key] = found.get(key, 0) + float(match["count"])
    return found


def _versions(story: Story) -> Mapping[str, str]:
    """resourceVersion of every object of the story."""
    kinds = (
        "ModelDeployment",
        "Deployment",
        "ReplicaSet",
        "ControllerRevision",
        "Service",
        "ConfigMap",
        "Secret",
        "Pod",
    )
    return {
        f"{kind} {o['metadata']['name']}": o["metadata"]["resourceVersion"]
        for kind in kinds
        for o in story.cluster.all(kind, story.namespace)
    }


def _lease_version(cluster: Cluster) -> list[str]:
    return [lease["metadata"]["resourceVersion"] for lease in cluster.all("Lease", NAMESPACE)]
