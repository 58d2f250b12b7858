"""Requests to an API server that misbehaves, over real connections on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from penstock.adapters.bucket import TokenBucket
from penstock.adapters.kube import ClientSend, KubeCluster, close
from penstock.adapters.transport import Api, Call, Patience, Response, Unreachable, refusal
from penstock.core.objects import CONFIG_MAP, HTTP_ROUTE, LEASE, SECRET, Fence, Ref
from penstock.ports import ClusterError, Conflict, Invalid
from tests.fakes.loopback import Loopback, loopback

REF = Ref(CONFIG_MAP, "ml", "lock")
OBJECT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lock", "namespace": "ml"}}


class Script:
    """Answers in turn; the last one for ever."""

    def __init__(self, *answers: web.Response | str) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, str):
            assert request.transport is not None
            if answer == "reset":
                request.transport.abort()
            else:
                await asyncio.sleep(5)
            return web.Response()
        # An answer object is used once by the server: answer with a fresh one.
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    def observe(self, verb: str, kind: str, code: str, seconds: float) -> None:
        self.seen.append((verb, kind, code))

    @property
    def codes(self) -> list[str]:
        return [code for _, _, code in self.seen]


def answer(status: int = 200, body: Any = None, **headers: str) -> web.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, body=json.dumps(OBJECT if body is None else body).encode(), headers=headers)


def status(code: int, message: str, **details: Any) -> web.Response:
    return answer(code, {"kind": "Status", "code": code, "message": message, "reason": "R", "details": details})


class Bench:
    def __init__(self, server: Loopback, script: Script, *, total: float = 5.0) -> None:
        configuration = Configuration(host=server.url)
        self.client = ApiClient(configuration)
        self.server = server
        self.script = script
        self.dates: list[str] = []
        send = ClientSend(self.client, connect=1.0, total=total)
        patience = Patience(attempts=3, first_delay=0.001, max_retry_after=0.01)
        self.api = Api(send, patience=patience, observe=script.observe, on_date=self.dates.append)
        self.cluster = KubeCluster(self.api)


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    script = Script(*request.param)
    async with loopback(script) as server:
        bench = Bench(server, script, total=0.2 if "hang" in request.param else 5.0)
        yield bench
        await close(bench.client)


def given(*answers: web.Response | str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", [answers], indirect=True)


@given(answer(503), answer(500), answer())
async def test_a_server_that_recovers_is_asked_again(bench: Bench) -> None:
    assert await bench.cluster.get(REF) == OBJECT
    assert bench.script.codes == ["503", "500", "200"]


@given("reset", answer())
async def test_a_broken_connection_is_tried_again(bench: Bench) -> None:
    assert await bench.cluster.annotate(REF, {"a": "b"}, Fence("u", "5")) == OBJECT
    assert bench.script.codes == ["error", "200"]


@given(answer(429, Retry_After="0.005"), answer())
async def test_a_write_waits_as_long_as_the_server_says(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await bench.cluster.annotate(REF, {"a": "b"}, Fence("u", "5"))
    assert loop.time() - started >= 0.005
    method, path, body, headers = bench.server.requests[-1]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/ml/configmaps/lock?fieldManager=penstock")
    assert headers["Content-Type"] == "application/merge-patch+json"
    meta = {"uid": "u", "resourceVersion": "5", "annotations": {"a": "b"}}
    assert json.loads(body) == {"metadata": meta}


@given(answer(503))
async def test_patience_ends(bench: Bench) -> None:
    with pytest.raises(ClusterError, match="get ConfigMap ml/lock: 503"):
        await bench.cluster.get(REF)
    assert bench.script.codes == ["503"] * 3


@given("hang")
async def test_a_silent_server_is_given_up(bench: Bench) -> None:
    with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
        await bench.cluster.get(REF)


async def test_no_server_at_all() -> None:
    async with loopback(Script(answer())) as server:
        script = Script(answer())
    bench = Bench(server, script)
    with pytest.raises(Unreachable, match="no connection to the API server"):
        await bench.cluster.get(REF)
    assert script.codes == ["error"] * 3
    await close(bench.client)


@given(status(409, "it changed"), answer())
async def test_a_conflict_is_not_tried_again(bench: Bench) -> None:
    with pytest.raises(Conflict, match="it changed"):
        await bench.cluster.apply(OBJECT, Fence("u", "5"))
    assert bench.script.codes == ["409"]


@pytest.mark.parametrize("code", [400, 403, 413, 422])
def test_what_will_never_work_is_invalid(code: int) -> None:
    call = Call("patch", CONFIG_MAP, "ml", "lock")
    body = json.dumps({"message": "no such field"}).encode()
    error = refusal(call, Response(code, {}, body))
    assert isinstance(error, Invalid)
    assert str(error) == f"patch ConfigMap ml/lock: {code} no such field"


def test_a_changed_uid_is_a_conflict() -> None:
    body = {"message": "immutable", "details": {"causes": [{"field": "metadata.uid"}]}}
    response = Response(422, {}, json.dumps(body).encode())
    assert isinstance(refusal(Call("patch", CONFIG_MAP, "ml", "lock"), response), Conflict)


def test_a_namespace_that_is_going_is_a_conflict() -> None:
    body = {"message": "being terminated", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    response = Response(403, {}, json.dumps(body).encode())
    assert isinstance(refusal(Call("patch", SECRET, "ml", "key"), response), Conflict)


def test_a_refusal_of_a_secret_quotes_no_value() -> None:
    body = json.dumps({"message": 'Invalid value: "hunter2"', "reason": "Invalid"}).encode()
    error = refusal(Call("patch", SECRET, "ml", "key"), Response(422, {}, body))
    assert str(error) == "patch Secret ml/key: 422 Invalid"
    body = json.dumps({"message": "user x cannot create", "reason": "Forbidden"}).encode()
    error = refusal(Call("patch", SECRET, "ml", "key"), Response(403, {}, body))
    assert str(error) == "patch Secret ml/key: 403 user x cannot create"


def test_a_refusal_that_is_no_status_is_quoted_in_part() -> None:
    error = refusal(Call("get", CONFIG_MAP, "ml", "lock"), Response(502, {}, b"<html>" + b"x" * 5000))
    assert str(error).startswith("get ConfigMap ml/lock: 502 <html>")
    assert len(str(error)) < 1200


@given(web.Response(body=b"not json"))
async def test_an_answer_that_is_no_object_is_an_error(bench: Bench) -> None:
    with pytest.raises(ClusterError, match="not a JSON object"):
        await bench.cluster.get(REF)


@given(
    answer(200, {"metadata": {"continue": "t1"}, "items": [OBJECT]}),
    status(410, "too old"),
    answer(200, {"metadata": {"continue": "t2"}, "items": [{"metadata": {"name": "a"}}]}),
    answer(200, {"metadata": {}, "items": [{"metadata": {"name": "b"}}]}),
)
async def test_a_list_whose_pages_expire_begins_again(bench: Bench) -> None:
    found = await bench.cluster.list(CONFIG_MAP, "ml", {"x": "1", "a": "2"})
    assert [obj["metadata"]["name"] for obj in found] == ["a", "b"]
    assert found[0]["kind"] == "ConfigMap"
    paths = [path for _, path, _, _ in bench.server.requests]
    first = "/api/v1/namespaces/ml/configmaps?limit=500&labelSelector=a%3D2,x%3D1"
    assert paths == [first, first + "&continue=t1", first, first + "&continue=t2"]


@given(answer(200, Date="Mon, 23 Nov 2026 20:00:00 GMT", Warning='299 - "v1 is deprecated"'))
async def test_dates_and_warnings_are_noted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await bench.cluster.get(REF)
        await bench.cluster.get(REF)
    assert bench.dates == ["Mon, 23 Nov 2026 20:00:00 GMT"] * 2
    assert caplog.text.count("v1 is deprecated") == 1, "once is enough"


async def test_writes_keep_their_pace() -> None:
    async with loopback(Script(answer())) as server:
        bench = Bench(server, Script(answer()))
        api = Api(ClientSend(bench.client), writes=TokenBucket(200, 1))
        cluster = KubeCluster(api)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*(cluster.apply(OBJECT, Fence("u", "5")) for _ in range(5)))
        assert loop.time() - started >= 0.019
        await close(bench.client)


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (Call("list", CONFIG_MAP, ""), "/api/v1/configmaps"),
        (Call("get", LEASE, "ops", "penstock"), "/apis/coordination.k8s.io/v1/namespaces/ops/leases/penstock"),
        (
            Call("update", HTTP_ROUTE, "ml", "a/b", "status"),
            "/apis/gateway.networking.k8s.io/v1/namespaces/ml/httproutes/a%2Fb/status",
        ),
    ],
)
def test_urls(call: Call, path: str) -> None:
    assert call.path == path


async def test_a_delay_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spans.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", uniform)
    async with loopback(Script(answer(503))) as server:
        bench = Bench(server, Script(answer(503)))
        with pytest.raises(ClusterError):
            await bench.cluster.get(REF)
        await close(bench.client)
    assert spans == [(0.5, 1.5)] * 3
