"""Prometheus' HTTP API: what is asked, and what comes of its answers. The real one is in tests/integration."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest
from aiohttp import web

from penstock.adapters import prometheus
from penstock.adapters.prometheus import Connection, PrometheusMetrics, promql
from penstock.adapters.samples import joined
from penstock.core.gates.samples import Series
from penstock.ports import MetricsUnavailable, SampleQuery
from tests.fakes.clock import START, FakeClock
from tests.fakes.loopback import Answer, loopback

NAMES = ("penstock_requests_total", "penstock_feedback_total")


def query(since: float = 0.0, bounds: tuple[str, ...] | None = None) -> SampleQuery:
    return SampleQuery("ml", "m", since, (), NAMES, bounds)


def page(body: Any, status: int = 200) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body if isinstance(body, bytes) else json.dumps(body).encode(), status=status)

    return answer


def matrix(*result: Any, **more: Any) -> Any:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(result)}, **more}


def counter(*values: tuple[float, str], **labels: str) -> Any:
    base = {"__name__": "penstock_requests_total", "namespace": "ml", "pod": "p", "model": "m", "revision": "r1"}
    return {"metric": {**base, "outcome": "ok", **labels}, "values": list(values)}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(session: aiohttp.ClientSession, body: Any, status: int = 200, since: float = 0.0) -> tuple[Series, ...]:
    async with loopback(body if callable(body) else page(body, status)) as server:
        metrics = PrometheusMetrics(session, FakeClock(), Connection(server.url, seconds=0.5))
        return await metrics.samples(query(since))


async def test_raw_samples_become_series(session: aiohttp.ClientSession) -> None:
    body = matrix(
        counter((START, "1"), (START + 15.123, "3"), job="pods", instance="10.0.0.1:9090", cluster="eu"),
        counter((START, "7"), outcome="timeout"),
    )
    assert await ask(session, body) == (
        Series(
            "p",
            "r1",
            "penstock_requests_total",
            (("outcome", "ok"),),
            ((START, 1.0), (START + 15.123, 3.0)),
        ),
        Series("p", "r1", "penstock_requests_total", (("outcome", "timeout"),), ((START, 7.0),)),
    )


async def test_only_what_is_new(session: aiohttp.ClientSession) -> None:
    body = matrix(counter((START, "1"), (START + 15, "3")), counter((START, "1"), outcome="timeout"))
    (series,) = await ask(session, body, since=START)
    assert series.points == ((START + 15, 3.0),)


async def test_nothing_known_is_no_error(session: aiohttp.ClientSession) -> None:
    assert await ask(session, matrix()) == ()


async def test_a_pod_with_a_new_address_is_one_series(session: aiohttp.ClientSession) -> None:
    body = matrix(
        counter((START + 30, "2"), (START + 45, "4"), instance="b"),
        counter((START, "7"), (START + 15, "9"), instance="a"),
    )
    (series,) = await ask(session, body)
    assert [value for _, value in series.points] == [7, 9, 2, 4]


async def test_two_sources_for_one_counter_stay_two(session: aiohttp.ClientSession) -> None:
    body = matrix(
        counter((START, "7"), (START + 15, "9"), job="a"),
        counter((START + 5, "7"), (START + 20, "9"), job="b"),
    )
    assert len(await ask(session, body)) == 2


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"status": "error", "errorType": "bad_data", "error": "parse error"}, 400, "answered 400: parse error"),
        (b"upstream connect error", 503, "answered 503: upstream connect error"),
        (b"Unauthorized", 401, "answered 401: Unauthorized"),
        (b"<html>", 200, "answered 200: <html>"),
        (b"[]", 200, "is the URL right"),
        ({"status": "success"}, 200, "is the URL right"),
        ({"status": "success", "data": {"resultType": "vector", "result": []}}, 200, "resultType is vector"),
        (matrix(counter((START, "x"))), 200, "is the URL right"),
        (matrix(warnings=["store eu1 is away"]), 200, "may lack a part: store eu1 is away"),
        (matrix(counter((START, "1"), pod="")), 200, "must set `namespace` and `pod` as target labels"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told(
    session: aiohttp.ClientSession, body: Any, status: int, says: str
) -> None:
    with pytest.raises(MetricsUnavailable, match=says):
        await ask(session, body, status)


async def test_no_connection(session: aiohttp.ClientSession) -> None:
    async with loopback(page(matrix())) as server:
        pass
    metrics = PrometheusMetrics(session, FakeClock(), Connection(server.url))
    with pytest.raises(MetricsUnavailable, match=re.escape(server.url) + ": no connection"):
        await metrics.samples(query())


async def test_no_such_host(session: aiohttp.ClientSession) -> None:
    metrics = PrometheusMetrics(session, FakeClock(), Connection("http://prometheus.invalid:9090"))
    with pytest.raises(MetricsUnavailable, match=r"there is no host prometheus\.invalid"):
        await metrics.samples(query())


async def test_credentials_are_read_anew_for_each_request(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with loopback(page(matrix())) as server:
        metrics = PrometheusMetrics(session, FakeClock(), Connection(server.url + "/prefix/", token))
        for text in ("one", "two"):
            token.write_text(text + "\n")
            await metrics.samples(query())
        token.unlink()
        with pytest.raises(MetricsUnavailable, match="its credentials cannot be read"):
            await metrics.samples(query())
    assert [headers["Authorization"] for *_, headers in server.requests] == ["Bearer one", "Bearer two"]
    assert server.requests[0][:2] == ("POST", "/prefix/api/v1/query")


async def test_basic_authentication(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    async with loopback(page(matrix())) as server:
        connection = Connection(server.url, username="me", password_file=tmp_path / "password")
        await PrometheusMetrics(session, FakeClock(), connection).samples(query())
    assert server.requests[0][3]["Authorization"] == "Basic bWU6c2VjcmV0"


async def test_asks_for_all_or_nothing(session: aiohttp.ClientSession) -> None:
    async with loopback(page(matrix())) as server:
        await PrometheusMetrics(session, FakeClock(), Connection(server.url)).samples(query(START - 30))
    form = parse_qs(server.requests[0][2].decode())
    assert form["partial_response"] == ["false"]
    assert form["query"][0].endswith("[90s]")


@pytest.mark.parametrize(
    ("since", "window"), [(START - 100.5, "161s"), (START + 50, "60s"), (0.0, "21600s"), (START - 7200, "7260s")]
)
def test_the_window_reaches_back_to_the_cursor_and_no_further_than_6_h(since: float, window: str) -> None:
    assert promql(query(since), START, {}).endswith(f"[{window}]")


def test_the_selector_names_one_model_and_quotes_what_it_is_given() -> None:
    asked = SampleQuery('ml"}', "m\\", START, (), ("a", "b.c"), ("0.5", "1.0", "+Inf"))
    text = promql(asked, START, {"cluster": "eu1"})
    assert text == (
        r'{__name__=~"a|b\\.c",namespace="ml\"}",model="m\\",cluster="eu1",'
        r'le=~"|\\+Inf|0\\.5|1|1\\.0"}[60s]'
    )


def test_series_keep_their_order_whatever_the_source() -> None:
    one = Series("p", "r", "n", (("outcome", "a"),), ((1.0, 1.0),))
    two = Series("p", "r", "n", (("outcome", "b"),), ((1.0, 1.0),))
    assert joined([two, one]) == joined([one, two]) == (one, two)


async def test_no_connection_is_asked_twice_since_its_name_may_lead_elsewhere_by_now() -> None:
    callers = []

    async def answer(request: web.Request) -> web.Response:
        callers.append(request.transport.get_extra_info("peername") if request.transport else None)
        return web.json_response(matrix())

    async with loopback(answer) as server:
        connection = Connection(server.url)
        async with aiohttp.ClientSession(connector=connection.connector()) as session:
            metrics = PrometheusMetrics(session, FakeClock(), connection)
            await metrics.samples(query())
            await metrics.samples(query())
    assert len(set(callers)) == 2


def store(*times: float) -> Answer:
    """A Prometheus that scraped two counters at these times, and knows `time` and the range of a selector."""

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        at = float(str(form.get("time", START)))
        window = float(str(form["query"]).rpartition("[")[2].removesuffix("s]"))
        seen = [(t, f"{t - START + 30_000:g}") for t in times if at - window <= t <= at]
        return web.json_response(matrix(*(counter(*seen, outcome=o) for o in ("ok", "timeout") if seen)))

    return answer


@pytest.mark.parametrize("silence", [0, 7200])
async def test_too_many_samples_for_one_answer_are_read_a_part_at_each_look(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, silence: int
) -> None:
    """Each look goes on from where the last one ended, also over a time in which nothing was scraped."""
    monkeypatch.setattr(prometheus, "_MAX_BODY", 8_000)
    wanted = [START - 15 * i for i in range(1200, 0, -1) if not -17_000 < -15 * i < silence - 17_000]
    looks: list[list[float]] = []
    async with loopback(store(*wanted)) as server:
        metrics = PrometheusMetrics(session, FakeClock(), Connection(server.url))
        since = wanted[0] - 1
        while since < wanted[-1] and len(looks) < 50:
            ok, timeout = await metrics.samples(query(since))
            assert ok.points == timeout.points
            looks.append([at for at, _ in ok.points])
            since = looks[-1][-1]
    assert [at for look in looks for at in look] == wanted
    assert 2 < len(looks) <= 21, "some 15 minutes at a time, the rest at once"


async def test_a_part_that_is_too_large_by_itself_is_told(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "_MAX_BODY", 500)
    async with loopback(store(*(START - 15 * i for i in range(400)))) as server:
        metrics = PrometheusMetrics(session, FakeClock(), Connection(server.url))
        with pytest.raises(MetricsUnavailable, match="the answer is larger than"):
            await metrics.samples(query(START - 6000))
