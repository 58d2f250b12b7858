"""Asking a model pod for its model's metadata."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from penstock.adapters.inspect import HttpInspector
from penstock.ports import PodTarget, ProbeFailed
from tests.fakes.loopback import Loopback, loopback

METADATA = {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}


@pytest.fixture
async def inspector() -> AsyncIterator[HttpInspector]:
    async with aiohttp.ClientSession() as session:
        yield HttpInspector(session, seconds=0.5)


def pod(server: Loopback) -> PodTarget:
    return PodTarget("m-r1-a", server.host, "r1", {"http": server.port})


async def test_metadata_as_the_pod_tells_it(inspector: HttpInspector) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(METADATA)

    async with loopback(answer) as server:
        assert await inspector.metadata(pod(server), "m") == METADATA
    assert server.requests[0][:2] == ("GET", "/v2/models/m")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"error": "loading"}', 503, "answered 503"),
        (b"[]", 200, "not with a model's metadata"),
        (b"<html>", 200, "not JSON"),
        (json.dumps({"x": "y" * (2 << 20)}).encode(), 200, "larger than 1 MiB"),
    ],
)
async def test_any_other_answer_is_a_failure(inspector: HttpInspector, body: bytes, status: int, says: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    async with loopback(answer) as server:
        with pytest.raises(ProbeFailed, match=f"pod m-r1-a, .*{says}"):
            await inspector.metadata(pod(server), "m")


async def test_no_connection(inspector: HttpInspector) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    async with loopback(answer) as server:
        target = pod(server)
    with pytest.raises(ProbeFailed, match="no connection"):
        await inspector.metadata(target, "m")


async def test_a_pod_that_has_no_address_yet(inspector: HttpInspector) -> None:
    with pytest.raises(ProbeFailed, match="no address"):
        await inspector.metadata(PodTarget("a", "", "r1", {"http": 80}), "m")
