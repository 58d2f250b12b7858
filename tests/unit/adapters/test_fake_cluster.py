"""What only the fake cluster does: crashes, garbage collection, the kubelet's part.

What it shares with the real API server is in tests/integration/test_kube_contract.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    MODEL_DEPLOYMENT,
    POD,
    Fence,
    Object,
    Ref,
    fence_of,
    ref_of,
)
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import Crash, FakeCluster
from tests.fakes.kubelet import DIGEST, Kubelet

NS = "ml"


def model(**spec: Any) -> Object:
    return {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": "ModelDeployment",
        "metadata": {"name": "fraud", "namespace": NS},
        "spec": {"model": {"uri": "http://x/m"}, **spec},
    }


def config_map(name: str, owner: Object | None = None, **data: str) -> Object:
    meta: dict[str, Any] = {"name": name, "namespace": NS, "labels": {"a": "b"}}
    if owner is not None:
        meta["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
        ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def deployment(replicas: int = 2) -> Object:
    labels = {"penstock.dev/model": "fraud", "penstock.dev/revision": "r1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fraud-r1", "namespace": NS, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "server", "image": "i"}]},
            },
        },
    }


async def test_crash_before_a_write_leaves_no_trace_of_it() -> None:
    cluster = FakeCluster()
    cluster.crash_at(2, "before")
    await cluster.apply(config_map("one"), Fence())
    with pytest.raises(Crash):
        await cluster.apply(config_map("two"), Fence())
    assert [obj["metadata"]["name"] for obj in cluster.all(CONFIG_MAP)] == ["one"]
    await cluster.apply(config_map("two"), Fence())
    assert not cluster.crash_pending


async def test_crash_after_a_write_keeps_it() -> None:
    cluster = FakeCluster()
    cluster.crash_at(1, "after")
    with pytest.raises(Crash):
        await cluster.apply(config_map("one"), Fence())
    assert [str(w) for w in cluster.writes] == ["apply ConfigMap ml/one"]
    assert len(cluster.all(CONFIG_MAP)) == 1


async def test_dependents_go_with_their_owner_and_stay_when_orphaned() -> None:
    cluster = FakeCluster()
    owner = cluster.put(model())
    child = await cluster.apply(config_map("child", owner), Fence())
    cluster.remove(ref_of(owner), orphan=True)
    assert "ownerReferences" not in cluster.must(ref_of(child))["metadata"]
    owner = cluster.put(model())
    await cluster.apply(config_map("second", owner), Fence())
    await cluster.delete(ref_of(owner), fence_of(owner))
    assert [obj["metadata"]["name"] for obj in cluster.all(CONFIG_MAP)] == ["child"]


async def test_generation_counts_spec_changes_only() -> None:
    cluster = FakeCluster()
    live = cluster.put(model(replicas=1))
    live = await cluster.replace_status({**live, "status": {"phase": "Pending"}})
    assert live["metadata"]["generation"] == 1
    live = await cluster.annotate(ref_of(live), {"a": "b"}, fence_of(live))
    assert live["metadata"]["generation"] == 1
    live = cluster.put(model(replicas=2))
    assert (live["metadata"]["generation"], live["status"]) == (2, {"phase": "Pending"})


async def test_a_field_taken_by_another_actor_stays_when_we_let_go() -> None:
    cluster = FakeCluster()
    live = await cluster.apply(deployment(replicas=2), Fence())
    live = cluster.edit(ref_of(live), lambda obj: obj["spec"].update(replicas=7))
    without = deployment()
    del without["spec"]["replicas"]
    live = await cluster.apply(without, fence_of(live))
    assert live["spec"]["replicas"] == 7


async def test_kubelet_scales_and_reports() -> None:
    clock = FakeClock()
    cluster = FakeCluster(clock)
    kubelet = Kubelet(cluster)
    ref = Ref(DEPLOYMENT, NS, "fraud-r1")
    await cluster.apply(deployment(3), Fence())
    live = kubelet.make_ready(ref, ready=2)
    assert (live["status"]["readyReplicas"], live["status"]["observedGeneration"]) == (2, 1)
    pods = cluster.all(POD, NS, {"penstock.dev/revision": "r1"})
    assert len({pod["status"]["podIP"] for pod in pods}) == 3
    assert DIGEST in pods[0]["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"]
    first = [c for c in pods[0]["status"]["conditions"] if c["type"] == "Ready"]
    clock.advance(30)
    kubelet.make_ready(ref)
    again = kubelet.pods(ref)
    assert [c for c in again[0]["status"]["conditions"] if c["type"] == "Ready"] == first
    assert [c for c in again[2]["status"]["conditions"] if c["type"] == "Ready"] != first
    await cluster.apply(deployment(1), fence_of(cluster.must(ref)))
    kubelet.make_ready(ref)
    assert [pod["metadata"]["name"] for pod in kubelet.pods(ref)] == [pods[0]["metadata"]["name"]]
    await cluster.delete(ref, fence_of(cluster.must(ref)))
    assert cluster.all(POD) == []


async def test_kubelet_tells_failures() -> None:
    cluster = FakeCluster()
    kubelet = Kubelet(cluster)
    live = await cluster.apply(deployment(1), Fence())
    kubelet.unschedulable(live, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    assert kubelet.pods(live)[0]["status"]["conditions"][0]["reason"] == "Unschedulable"
    kubelet.fail_fetch(live, "ModelNotFound", "no such key")
    status = kubelet.pods(live)[0]["status"]
    assert "ModelNotFound" in status["initContainerStatuses"][0]["lastState"]["terminated"]["message"]
    kubelet.make_ready(live)
    assert "Pending" not in kubelet.pods(live)[0]["status"]["phase"]
