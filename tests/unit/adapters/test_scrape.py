"""Direct scraping, of real HTTP servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from penstock.adapters.scrape import ScrapeMetrics
from penstock.core.gates.samples import Series
from penstock.ports import MetricsUnavailable, PodTarget, SampleQuery
from tests.fakes.clock import START, FakeClock
from tests.fakes.loopback import Answer, Loopback, loopback

TEXT = """# TYPE penstock_requests_total counter
penstock_requests_total{model="m",revision="r1",outcome="ok"} 12
penstock_requests_total{model="m",revision="r1",outcome="timeout"} 0
penstock_requests_total{model="other",revision="r1",outcome="ok"} 5
penstock_request_duration_seconds_bucket{model="m",revision="r1",le="0.001"} 3
penstock_request_duration_seconds_bucket{model="m",revision="r1",le="1.0"} 12
penstock_request_duration_seconds_bucket{model="m",revision="r1",le="+Inf"} 12
penstock_feedback_total{model="m",revision="r0",result="correct",cohort="none"} 4
penstock_model_loaded{model="m",revision="r1"} 1
"""


def page(text: str, status: int = 200) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    return answer


async def silent(_: web.Request) -> web.Response:
    await asyncio.sleep(10)
    return web.Response()


async def elsewhere(_: web.Request) -> web.Response:
    raise web.HTTPFound("http://example.com/")


def pod(server: Loopback, name: str = "m-r1-a") -> PodTarget:
    return PodTarget(name, server.host, "r1", {"http": 1, "metrics": server.port})


def query(*pods: PodTarget, since: float = 0.0, bounds: tuple[str, ...] | None = None) -> SampleQuery:
    names = (
        "penstock_requests_total",
        "penstock_feedback_total",
        "penstock_request_duration_seconds_bucket",
    )
    return SampleQuery("ml", "m", since, pods, names, bounds)


@pytest.fixture
async def metrics() -> AsyncIterator[ScrapeMetrics]:
    async with aiohttp.ClientSession() as session:
        yield ScrapeMetrics(session, FakeClock(), seconds=0.5)


async def test_one_point_for_each_counter_of_the_model(metrics: ScrapeMetrics) -> None:
    async with loopback(page(TEXT)) as server:
        found = await metrics.samples(query(pod(server), bounds=("1", "+Inf")))
    at = START
    assert found == (
        Series(
            "m-r1-a",
            "r0",
            "penstock_feedback_total",
            (("cohort", "none"), ("result", "correct")),
            ((at, 4.0),),
        ),
        Series("m-r1-a", "r1", "penstock_request_duration_seconds_bucket", (("le", "+Inf"),), ((at, 12.0),)),
        Series("m-r1-a", "r1", "penstock_request_duration_seconds_bucket", (("le", "1.0"),), ((at, 12.0),)),
        Series("m-r1-a", "r1", "penstock_requests_total", (("outcome", "ok"),), ((at, 12.0),)),
        Series("m-r1-a", "r1", "penstock_requests_total", (("outcome", "timeout"),), ((at, 0.0),)),
    )
    assert server.requests[0][:2] == ("GET", "/metrics")


async def test_all_bounds_where_none_are_named(metrics: ScrapeMetrics) -> None:
    async with loopback(page(TEXT)) as server:
        found = await metrics.samples(query(pod(server)))
    assert sum(series.name.endswith("_bucket") for series in found) == 3


async def test_a_pod_that_does_not_answer_has_no_point(metrics: ScrapeMetrics) -> None:
    async with (
        loopback(page(TEXT)) as good,
        loopback(silent) as hanging,
        loopback(page("no", 503)) as failing,
        loopback(page("<html>")) as other,
        loopback(elsewhere) as redirecting,
    ):
        servers = {"a": good, "b": hanging, "c": failing, "d": other, "e": redirecting}
        found = await metrics.samples(query(*(pod(server, name) for name, server in servers.items())))
    assert {series.pod for series in found} == {"a"}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (silent, r"no answer within 0\.5 s"),
        (page("no", 503), "answered 503"),
        (page("<html>"), "something else than metrics: line 1"),
        (elsewhere, "redirects to http://example.com/"),
        (page('penstock_requests_total{model="m"} x\n'), "is not a sample"),
        (page("x" * (5 << 20)), "larger than 4 MiB"),
    ],
)
async def test_when_none_answers_the_cause_is_told(metrics: ScrapeMetrics, answer: Answer, says: str) -> None:
    async with loopback(answer) as server:
        with pytest.raises(MetricsUnavailable, match=says):
            await metrics.samples(query(pod(server)))


async def test_no_connection(metrics: ScrapeMetrics) -> None:
    async with loopback(page(TEXT)) as server:
        target = pod(server)
    with pytest.raises(MetricsUnavailable, match=r"1 of 1 pods gave no metrics: .*no connection"):
        await metrics.samples(query(target))


async def test_pods_without_an_address_are_not_asked(metrics: ScrapeMetrics) -> None:
    targets = (PodTarget("a", "", "r1", {"metrics": 1}), PodTarget("b", "127.0.0.1", "r1", {"http": 1}))
    assert await metrics.samples(query(*targets)) == ()


async def test_a_point_that_is_not_new_is_none(metrics: ScrapeMetrics) -> None:
    async with loopback(page(TEXT)) as server:
        assert await metrics.samples(query(pod(server), since=START)) == ()


async def test_only_so_many_at_a_time() -> None:
    active = [0, 0]

    async def count(_: web.Request) -> web.Response:
        active[0] += 1
        active[1] = max(active)
        await asyncio.sleep(0.01)
        active[0] -= 1
        return web.Response(text=TEXT)

    async with loopback(count) as server, aiohttp.ClientSession() as session:
        metrics = ScrapeMetrics(session, FakeClock(), parallel=3)
        await metrics.samples(query(*(pod(server, str(i)) for i in range(12))))
    assert active[1] == 3
