"""A real kube-apiserver with etcd, once a session, holding the CRDs; a namespace of its own for each test."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.cluster.apiserver import ApiServer, running
from tests.integration.rest import Refused, Rest

CRDS = Path(__file__).parents[2] / "crds"
ESTABLISHED_S = 30.0
NOT_YET = (404, 429, 503)  # 429 while the storage of a new type is being set up


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server, with every CRD of the project established. Only the tests act on its objects."""
    with running(tmp_path_factory.mktemp("apiserver")) as server:
        _install_crds(Rest(server.url, server.token, server.ca))
        yield server


@pytest.fixture(scope="session")
def kubeconfig(api_server: ApiServer) -> Path:
    """The kubeconfig of a cluster administrator."""
    return api_server.kubeconfig


@pytest.fixture(scope="session")
def rest(api_server: ApiServer) -> Rest:
    """Plain requests to the API server, as an administrator."""
    return Rest(api_server.url, api_server.token, api_server.ca)


@pytest.fixture
def namespace(rest: Rest) -> str:
    """A fresh namespace; it goes with the server, since nothing there could finish deleting it."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    rest.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return name


def _install_crds(rest: Rest) -> None:
    collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    names = [
        rest.create(collection, yaml.safe_load(path.read_text()))["metadata"]["name"]
        for path in sorted(CRDS.glob("*.yaml"))
    ]
    deadline = time.monotonic() + ESTABLISHED_S
    waiting = set(names)
    while waiting:
        if time.monotonic() > deadline:
            pytest.fail(f"not established within {ESTABLISHED_S:.0f} s: {sorted(waiting)}")
        waiting = {name for name in waiting if not _is_served(rest, f"{collection}/{name}")}
        time.sleep(0.05)


def _is_served(rest: Rest, path: str) -> bool:
    """Established, and answering already: the handler follows the condition by a moment."""
    crd = rest.get(path)
    conditions = {c["type"]: c["status"] for c in crd.get("status", {}).get("conditions") or ()}
    if conditions.get("Established") != "True":
        return False
    group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
    try:
        rest.get(f"/apis/{group}/{crd['spec']['versions'][0]['name']}/{plural}")
    except Refused as refusal:
        if refusal.code in NOT_YET:
            return False
        raise
    return True
