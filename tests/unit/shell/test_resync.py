"""The listing beside the watches."""

from __future__ import annotations

import asyncio

import pytest

from penstock.core.objects import MODEL_DEPLOYMENT, Object, Ref
from penstock.ports import ClusterError
from penstock.shell import resync as resync_module
from penstock.shell.queue import WorkQueue
from penstock.shell.resync import Resync
from penstock.shell.telemetry import Telemetry
from penstock.shell.workers import Key
from tests.fakes.clock import START
from tests.fakes.cluster import FakeCluster
from tests.fakes.timer import FakeTimer


def model(namespace: str, name: str) -> Object:
    return {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": "http://x/m"}},
    }


class Bench:
    def __init__(self, *namespaces: str) -> None:
        self.timer = FakeTimer()
        self.cluster = FakeCluster()
        self.telemetry = Telemetry()
        self.queue: WorkQueue[Key] = WorkQueue(self.timer)
        self.resync = Resync(
            self.cluster, self.queue, self.cluster.clock, self.telemetry, namespaces=namespaces, period=300
        )

    async def drain(self) -> list[Key]:
        keys = []
        while len(self.queue):
            key = await self.queue.get()
            self.queue.done(key)
            keys.append(key)
        return keys

    def gauge(self, name: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name)


async def test_all_objects_are_queued_at_once_the_first_time() -> None:
    bench = Bench()
    for namespace, name in (("b", "two"), ("a", "one")):
        bench.cluster.put(model(namespace, name))
    await bench.resync.once()
    assert await bench.drain() == [("a", "one"), ("b", "two")]
    assert bench.gauge("penstock_modeldeployments") == 2
    assert bench.gauge("penstock_last_resync_timestamp_seconds") == START


async def test_only_the_namespaces_asked_for() -> None:
    bench = Bench("a", "c")
    for namespace in ("a", "b", "c"):
        bench.cluster.put(model(namespace, "m"))
    await bench.resync.once()
    assert await bench.drain() == [("a", "m"), ("c", "m")]


async def test_later_listings_are_spread() -> None:
    bench = Bench()
    for i in range(40):
        bench.cluster.put(model("a", f"m{i}"))
    await bench.resync.once(30.0)
    bench.timer.advance(15)
    half = len(bench.queue)
    assert 0 < half < 40
    bench.timer.advance(15)
    assert len(bench.queue) == 40


async def test_what_is_gone_is_forgotten() -> None:
    bench = Bench()
    bench.cluster.put(model("a", "m"))
    await bench.resync.once()
    await bench.drain()
    bench.queue.add_after(("a", "m"), 10)
    bench.cluster.remove(Ref(MODEL_DEPLOYMENT, "a", "m"))
    await bench.resync.once()
    bench.timer.advance(100)
    assert await bench.drain() == []
    assert bench.gauge("penstock_modeldeployments") == 0


async def test_an_outage_does_not_end_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync_module, "RETRY", 0.001)
    bench = Bench()
    bench.cluster.put(model("a", "m"))
    bench.cluster.outage = ClusterError("down")
    task = asyncio.create_task(bench.resync.run())
    try:
        await asyncio.sleep(0.005)
        assert len(bench.queue) == 0
        bench.cluster.outage = None
        async with asyncio.timeout(5):
            assert await bench.queue.get() == ("a", "m")
    finally:
        task.cancel()
        await asyncio.wait({task})
