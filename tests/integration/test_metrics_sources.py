"""The two sources of samples tell the same: a real Prometheus, and direct scraping, of the same pods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from penstock.adapters.clock import ServerClock
from penstock.adapters.prometheus import Connection, PrometheusMetrics
from penstock.adapters.scrape import ScrapeMetrics
from penstock.core.gates.samples import FEEDBACK, LATENCY, REQUESTS, Series
from penstock.ports import MetricsUnavailable, PodTarget, SampleQuery
from penstock_runtime.server.metrics import DURATION_BOUNDS, Metrics, exposition
from tests.fakes.loopback import loopback
from tests.integration.prometheus import config, prometheus

BOUNDS = tuple(repr(DURATION_BOUNDS[k]) for k in (0, 24, 48))
State = dict[tuple[str, str, str, tuple[tuple[str, str], ...]], float]


class Pod:
    """A model pod's metrics port, with the runtime's own metrics behind it."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.metrics = Metrics('m"\\', revision)
        self.feedback = {"correct": 0, "incorrect": 0}

    def serve(self, good: int, bad: int, seconds: float = 0.02) -> None:
        self.metrics.requests["ok"] += good
        self.metrics.requests["client_error"] += bad
        for _ in range(good):
            self.metrics.request_seconds.observe(seconds)

    def restart(self) -> None:
        self.metrics = Metrics('m"\\', self.revision)
        self.feedback = dict.fromkeys(self.feedback, 0)

    async def page(self, _: web.Request) -> web.Response:
        return web.Response(body=exposition([self.metrics.lines(), self._feedback()]), content_type="text/plain")

    def _feedback(self) -> Iterable[str]:
        for result, count in self.feedback.items():
            labels = f'model="m\\"\\\\",revision="{self.revision}",result="{result}",cohort="r2-abcde"'
            yield f"{FEEDBACK}{{{labels}}} {count}"


def last(series: Iterable[Series]) -> State:
    """The newest value of each counter."""
    return {(s.pod, s.revision, s.name, s.labels): s.points[-1][1] for s in series}


async def first(source: PrometheusMetrics, query: SampleQuery) -> None:
    """Wait until Prometheus has scraped."""
    async with asyncio.timeout(15):
        while not await source.samples(query):  # noqa: ASYNC110 - nothing signals a scrape
            await asyncio.sleep(0.1)


class Bench:
    def __init__(self, scrape: ScrapeMetrics, source: PrometheusMetrics, targets: tuple[PodTarget, ...]) -> None:
        self.scrape = scrape
        self.source = source
        self.targets = targets

    def query(self, since: float = 0.0, bounds: tuple[str, ...] | None = BOUNDS) -> SampleQuery:
        return SampleQuery("ml", 'm"\\', since, self.targets, (REQUESTS, LATENCY, FEEDBACK), bounds)

    async def agree(self) -> State:
        """Wait until Prometheus has seen what the pods tell now, and return it."""
        told = last(await self.scrape.samples(self.query()))
        found: State = {}
        deadline = time.monotonic() + 15
        while found != told:
            if time.monotonic() > deadline:
                pytest.fail(f"Prometheus tells {found}, the pods tell {told}")
            await asyncio.sleep(0.1)
            found = last(await self.source.samples(self.query()))
        return told


async def test_both_sources_tell_the_same(tmp_path: Path) -> None:
    pods = {"m-r1-a": Pod("r1"), "m-r1-b": Pod("r1"), "m-r2-c": Pod("r2")}
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(loopback(pod.page)) for name, pod in pods.items()}
        targets = tuple(
            PodTarget(name, server.host, pods[name].revision, {"metrics": server.port})
            for name, server in servers.items()
        )
        labels = {f"{s.host}:{s.port}": {"namespace": "ml", "pod": name} for name, s in servers.items()}
        url = await stack.enter_async_context(prometheus(tmp_path, config(labels)))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        clock = ServerClock()
        source = PrometheusMetrics(session, clock, Connection(url))
        bench = Bench(ScrapeMetrics(session, clock), source, targets)

        start = await bench.agree()
        # 5 outcomes, 3 bounds and 2 results a pod, all there from the start at 0.
        assert (len(start), set(start.values())) == (3 * 10, {0.0})

        pods["m-r1-a"].serve(40, 1)
        pods["m-r2-c"].serve(7, 3, seconds=0.5)
        pods["m-r1-b"].feedback["incorrect"] += 5
        served = await bench.agree()
        assert served["m-r1-a", "r1", REQUESTS, (("outcome", "ok"),)] == 40
        assert served["m-r1-a", "r1", LATENCY, (("le", BOUNDS[2]),)] == 40
        assert served["m-r2-c", "r2", LATENCY, (("le", BOUNDS[2]),)] == 0

        pods["m-r1-a"].restart()
        pods["m-r1-a"].serve(2, 0)
        reset = await bench.agree()
        assert reset["m-r1-a", "r1", REQUESTS, (("outcome", "ok"),)] == 2

        history = {(s.pod, s.name, s.labels): s for s in await source.samples(bench.query())}
        ok = history["m-r1-a", REQUESTS, (("outcome", "ok"),)]
        values = [value for _, value in ok.points]
        assert [v for i, v in enumerate(values) if i == 0 or v != values[i - 1]] == [0, 40, 2]
        times = {s.points[-1][0] for s in history.values() if s.pod == "m-r1-a"}
        assert len(times) == 1, "the counters of one scrape share its time"

        newer = await source.samples(bench.query(since=ok.points[-1][0]))
        assert all(s.points[0][0] > ok.points[-1][0] for s in newer)
        assert len(last(await source.samples(bench.query(bounds=None)))) == 3 * (5 + 98 + 2)


async def test_a_prometheus_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    pod = Pod("r1")
    async with loopback(pod.page) as server, aiohttp.ClientSession() as session:
        address = {f"{server.host}:{server.port}": {"namespace": "ml", "pod": "m-r1-a"}}
        query = SampleQuery("ml", 'm"\\', 0.0, (), (REQUESTS,), None)
        async with prometheus(tmp_path, config(address)) as url:
            source = PrometheusMetrics(session, ServerClock(), Connection(url))
            await first(source, query)
            other = SampleQuery("other", 'm"\\', 0.0, (), (REQUESTS,), None)
            assert await source.samples(other) == ()
        with pytest.raises(MetricsUnavailable, match="no connection"):
            await source.samples(query)


async def test_targets_without_a_pod_label_are_told(tmp_path: Path) -> None:
    pod = Pod("r1")
    async with loopback(pod.page) as server, aiohttp.ClientSession() as session:
        address = {f"{server.host}:{server.port}": {"namespace": "ml"}}
        async with prometheus(tmp_path, config(address)) as url:
            source = PrometheusMetrics(session, ServerClock(), Connection(url))
            query = SampleQuery("ml", 'm"\\', 0.0, (), (REQUESTS,), None)
            with pytest.raises(MetricsUnavailable, match="has no label `pod`"):
                await first(source, query)
