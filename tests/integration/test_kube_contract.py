"""What the `Cluster` port promises, over the fake and over a real kube-apiserver alike.

Whatever the machine's tests take for granted of `FakeCluster` has a case here.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.kube import ClientSend, KubeCluster, close, connect
from penstock.adapters.transport import Api
from penstock.core.objects import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    HTTP_ROUTE,
    MODEL_DEPLOYMENT,
    SERVICE,
    Fence,
    Object,
    Ref,
    fence_of,
    ref_of,
)
from penstock.ports import Cluster, Conflict, Invalid
from tests.fakes.cluster import FakeCluster

NS = "default"


@pytest.fixture(params=["fake", "kube"])
async def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    if request.param == "fake":
        yield FakeCluster(missing=frozenset({HTTP_ROUTE}))
        return
    kubeconfig: Path = request.getfixturevalue("kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    client = await connect()
    try:
        yield KubeCluster(Api(ClientSend(client)))
    finally:
        await close(client)


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


def config_map(name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NS, "labels": {"test": name}},
        "data": data,
    }


def deployment(name: str, **spec: Any) -> Object:
    labels = {"test": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NS, "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {
                            "name": "server",
                            "image": "example.com/server:1",
                            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                            "ports": [{"name": "http", "containerPort": 8080}],
                        }
                    ]
                },
            },
            **spec,
        },
    }


def service(name: str, **selector: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }


def version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


async def read(cluster: Cluster, obj: Object) -> Object:
    live = await cluster.get(ref_of(obj))
    assert live is not None
    return live


async def test_absent_object_is_none(cluster: Cluster, name: str) -> None:
    assert await cluster.get(Ref(CONFIG_MAP, NS, name)) is None


async def test_type_not_installed_is_absent(cluster: Cluster, name: str) -> None:
    assert await cluster.get(Ref(HTTP_ROUTE, NS, name)) is None
    assert await cluster.list(HTTP_ROUTE, NS, {}) == []
    route = {
        "apiVersion": HTTP_ROUTE.api_version,
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NS},
    }
    with pytest.raises(Invalid, match="httproutes"):
        await cluster.apply(route, Fence())


async def test_created_by_apply_where_absent(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(config_map(name, a="1"), Fence())
    live = await read(cluster, made)
    assert (live["data"], live["kind"], version(live)) == ({"a": "1"}, "ConfigMap", version(made))
    assert live["metadata"]["uid"] == made["metadata"]["uid"]


@pytest.mark.parametrize("way", ["apply", "create"])
async def test_creation_is_refused_where_an_object_exists(cluster: Cluster, name: str, way: str) -> None:
    made = await cluster.apply(config_map(name, a="1"), Fence())
    second = config_map(name, a="2")
    with pytest.raises(Conflict):
        await (cluster.create(second) if way == "create" else cluster.apply(second, Fence()))
    assert await read(cluster, made) == made


async def test_equal_apply_changes_nothing(cluster: Cluster, name: str) -> None:
    for manifest in (config_map(name, a="1"), deployment(name), service(name, app=name)):
        made = await cluster.apply(manifest, Fence())
        again = await cluster.apply(copy.deepcopy(manifest), fence_of(made))
        assert version(again) == version(made)


async def test_apply_decided_on_an_old_state_is_refused(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(config_map(name, a="1"), Fence())
    newer = await cluster.annotate(ref_of(made), {"x": "y"}, fence_of(made))
    with pytest.raises(Conflict):
        await cluster.apply(config_map(name, a="2"), fence_of(made))
    assert (await read(cluster, made))["data"] == {"a": "1"}
    assert (await cluster.apply(config_map(name, a="2"), fence_of(newer)))["data"] == {"a": "2"}


async def test_apply_to_a_deleted_object_does_not_bring_it_back(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(config_map(name, a="1"), Fence())
    await cluster.delete(ref_of(made), fence_of(made))
    with pytest.raises(Conflict):
        await cluster.apply(config_map(name, a="2"), fence_of(made))
    assert await cluster.get(ref_of(made)) is None


async def test_apply_to_an_object_made_anew_is_refused(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(config_map(name, a="1"), Fence())
    await cluster.delete(ref_of(made), fence_of(made))
    anew = await cluster.apply(config_map(name, a="3"), Fence())
    old = fence_of(made)
    for fence in (old, Fence(old.uid, version(anew))):
        with pytest.raises(Conflict):
            await cluster.apply(config_map(name, a="2"), fence)
        with pytest.raises(Conflict):
            await cluster.annotate(ref_of(anew), {"x": "y"}, fence)
        with pytest.raises(Conflict):
            await cluster.delete(ref_of(anew), fence)
    assert await read(cluster, anew) == anew


@pytest.mark.parametrize("way", ["apply", "create"])
async def test_fields_left_out_of_a_later_apply_go(cluster: Cluster, name: str, way: str) -> None:
    first = service(name, app=name, revision="r1")
    first["metadata"]["labels"] = {"one": "1", "two": "2"}
    first["spec"]["ports"].append({"name": "admin", "port": 9091, "targetPort": "admin"})
    made = await (cluster.create(first) if way == "create" else cluster.apply(first, Fence()))
    assert len(made["spec"]["ports"]) == 2
    second = service(name, app=name)
    second["metadata"]["labels"] = {"one": "1"}
    live = await cluster.apply(second, fence_of(made))
    assert live["spec"]["selector"] == {"app": name}
    assert live["metadata"]["labels"] == {"one": "1"}
    assert [port["name"] for port in live["spec"]["ports"]] == ["http"]


async def test_entries_of_keyed_lists_are_ours_one_by_one(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(deployment(name), Fence())
    second = deployment(name)
    container = second["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "B", "value": "3"}]
    live = await cluster.apply(second, fence_of(made))
    container = live["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "B", "value": "3"}]
    assert container["ports"][0]["containerPort"] == 8080


async def test_a_field_left_out_returns_to_its_default(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(deployment(name, replicas=3), Fence())
    without = deployment(name)
    del without["spec"]["replicas"]
    live = await cluster.apply(without, fence_of(made))
    assert live["spec"]["replicas"] == 1


async def test_annotations_of_annotate_survive_applies(cluster: Cluster, name: str) -> None:
    manifest = config_map(name, a="1")
    manifest["metadata"]["annotations"] = {"applied": "1", "dropped": "1"}
    live = await cluster.apply(manifest, Fence())
    live = await cluster.annotate(ref_of(live), {"noted": "1", "applied": "1"}, fence_of(live))
    assert live["metadata"]["annotations"] == {"applied": "1", "dropped": "1", "noted": "1"}
    manifest["metadata"]["annotations"] = {"applied": "1"}
    live = await cluster.apply(manifest, fence_of(live))
    assert live["metadata"]["annotations"] == {"applied": "1", "noted": "1"}


async def test_equal_annotations_change_nothing(cluster: Cluster, name: str) -> None:
    live = await cluster.apply(config_map(name), Fence())
    live = await cluster.annotate(ref_of(live), {"x": "y"}, fence_of(live))
    again = await cluster.annotate(ref_of(live), {"x": "y"}, fence_of(live))
    assert version(again) == version(live)


async def test_annotating_an_absent_object_is_a_conflict(cluster: Cluster, name: str) -> None:
    live = await cluster.apply(config_map(name), Fence())
    await cluster.delete(ref_of(live), fence_of(live))
    for fence in (fence_of(live), Fence()):
        with pytest.raises(Conflict):
            await cluster.annotate(ref_of(live), {"x": "y"}, fence)


async def test_delete_is_fenced_and_forgiving(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(config_map(name, a="1"), Fence())
    await cluster.annotate(ref_of(made), {"x": "y"}, fence_of(made))
    for fence in (fence_of(made), Fence()):
        with pytest.raises(Conflict):
            await cluster.delete(ref_of(made), fence)
    live = await read(cluster, made)
    await cluster.delete(ref_of(live), fence_of(live))
    assert await cluster.get(ref_of(live)) is None
    await cluster.delete(ref_of(live), fence_of(live))


async def test_list_selects_by_labels_and_namespace(cluster: Cluster, name: str) -> None:
    for suffix, labels in (("a", {"x": name}), ("b", {"x": name, "y": "1"}), ("c", {"y": "1"})):
        manifest = config_map(f"{name}-{suffix}")
        manifest["metadata"]["labels"] = labels
        await cluster.apply(manifest, Fence())
    found = await cluster.list(CONFIG_MAP, NS, {"x": name})
    assert sorted(obj["metadata"]["name"] for obj in found) == [f"{name}-a", f"{name}-b"]
    assert [obj["metadata"]["name"] for obj in await cluster.list(CONFIG_MAP, "", {"x": name, "y": "1"})] == [
        f"{name}-b"
    ]
    assert await cluster.list(CONFIG_MAP, "other", {"x": name}) == []
    assert ref_of(found[0]).kind == CONFIG_MAP


async def test_status_is_written_apart_from_the_spec(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(deployment(name), Fence())
    assert made["metadata"]["generation"] == 1
    body = copy.deepcopy(made)
    body["spec"]["replicas"] = 9
    body["status"] = {"replicas": 2, "observedGeneration": 1}
    live = await cluster.replace_status(body)
    assert (live["spec"]["replicas"], live["status"]["replicas"]) == (2, 2)
    assert live["metadata"]["generation"] == 1
    assert version(live) != version(made)
    assert version(await cluster.replace_status(live)) == version(live)
    with pytest.raises(Conflict):
        await cluster.replace_status(body)
    live = await cluster.apply(deployment(name, replicas=5), fence_of(live))
    assert (live["metadata"]["generation"], live["status"]["replicas"]) == (2, 2)


async def test_custom_resources_keep_status_and_generation_apart(cluster: Cluster, name: str) -> None:
    manifest: Object = {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"model": {"uri": "http://models.example/m.onnx"}},
        "status": {"phase": "Healthy"},
    }
    live = await cluster.create(manifest)
    assert live["metadata"]["generation"] == 1
    assert "status" not in live, "a status is only written through its subresource"
    old = live
    live = await cluster.replace_status({**live, "status": {"phase": "Pending", "message": "m", "seq": 1}})
    assert (live["status"]["phase"], live["metadata"]["generation"]) == ("Pending", 1)
    live = await cluster.replace_status({**live, "status": {"phase": "Progressing"}})
    assert live["status"] == {"phase": "Progressing"}, "it is replaced, not merged"
    with pytest.raises(Conflict):
        await cluster.replace_status({**old, "status": {"phase": "Healthy"}})
    live = await cluster.annotate(ref_of(live), {"penstock.dev/command": "pause x"}, fence_of(live))
    assert live["metadata"]["generation"] == 1
    manifest["spec"]["model"]["uri"] = "http://models.example/n.onnx"
    live = await cluster.apply(manifest, fence_of(live))
    assert (live["metadata"]["generation"], live["status"]) == (2, {"phase": "Progressing"})
    again = await cluster.apply(manifest, fence_of(live))
    assert version(again) == version(live)


async def test_status_of_a_deleted_object_is_a_conflict(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(deployment(name), Fence())
    await cluster.delete(ref_of(made), fence_of(made))
    with pytest.raises(Conflict):
        await cluster.replace_status({**made, "status": {"replicas": 1}})


async def test_what_the_server_refuses_for_good_is_invalid(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(deployment(name), Fence())
    other = deployment(name)
    other["spec"]["selector"]["matchLabels"] = {"test": "other"}
    other["spec"]["template"]["metadata"]["labels"] = {"test": "other"}
    with pytest.raises(Invalid, match=r"selector.*immutable"):
        await cluster.apply(other, fence_of(made))
    revision: Object = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": NS},
        "revision": 1,
        "data": {"spec": {"a": [1, {"b": None}]}},
    }
    kept = await cluster.create(revision)
    assert kept["data"] == revision["data"]
    with pytest.raises(Invalid, match=r"(?i)immutable"):
        await cluster.apply({**revision, "data": {"spec": {}}}, fence_of(kept))
    assert ref_of(kept).kind == CONTROLLER_REVISION


async def test_of_many_writers_at_once_exactly_one_wins(cluster: Cluster, name: str) -> None:
    made = await cluster.apply(config_map(name, a="0"), Fence())
    tries = [cluster.apply(config_map(name, a=str(i)), fence_of(made)) for i in range(1, 9)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    won = [r for r in results if isinstance(r, dict)]
    assert len(won) == 1
    assert all(isinstance(r, Conflict) for r in results if r is not won[0])
    assert (await read(cluster, made))["data"] == won[0]["data"]


async def test_the_kinds_used_here_are_told_apart(cluster: Cluster, name: str) -> None:
    await cluster.apply(service(name, app=name), Fence())
    assert await cluster.get(Ref(DEPLOYMENT, NS, name)) is None
    assert (await read(cluster, service(name)))["kind"] == SERVICE.kind
