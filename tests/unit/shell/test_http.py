"""The operator's own HTTP port."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from penstock.shell.http import STALE, Health, application, serve
from penstock.shell.telemetry import Telemetry
from tests.fakes.timer import FakeTimer


class Port:
    def __init__(self) -> None:
        self.timer = FakeTimer()
        self.health = Health(monotonic=self.timer)
        self.url = ""

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return response.status, await response.text()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    out = Port()
    runner = await serve(application(out.health, Telemetry()), 0)
    (number,) = (address[1] for address in runner.addresses if address[0] == "0.0.0.0")  # noqa: S104
    out.url = f"http://127.0.0.1:{number}"
    yield out
    await runner.cleanup()


async def test_alive_while_the_loop_beats(port: Port) -> None:
    assert await port.get("/livez") == (200, "ok  event-loop\n")
    port.timer.advance(STALE)
    assert await port.get("/livez") == (503, "NOT event-loop\n")


async def test_ready_when_every_condition_is(port: Port) -> None:
    watching = [False]
    port.health.readiness["watches"] = lambda: watching[0]
    assert await port.get("/readyz") == (503, "NOT watches\n")
    watching[0] = True
    assert await port.get("/readyz") == (200, "ok  watches\n")


async def test_metrics_are_served_as_text(port: Port) -> None:
    status, text = await port.get("/metrics")
    assert status == 200
    assert "# TYPE penstock_workqueue_depth gauge" in text


async def test_a_taken_port_is_an_error(port: Port) -> None:
    taken = int(port.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="address already in use"):
        await serve(application(port.health, Telemetry()), taken)
