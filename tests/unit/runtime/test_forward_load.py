"""Forwarding under load: the share is exact, changes at once, and no request fails whatever the target does."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.unit.runtime.conftest import ProcessPair, StartProcess
from tests.unit.runtime.forwarding import forwarded, tell, told, url
from tests.unit.runtime.load import Load, until
from tests.unit.runtime.process import call
from tests.unit.runtime.scrape import requests_by_outcome
from tests.unit.runtime.test_workers import WORKERS
from tests.unit.runtime.test_workers import start as start_workers


@pytest.mark.parametrize("share", [0.05])
async def test_the_share_of_20000_requests_is_within_half_a_point(process_pair: ProcessPair, share: float) -> None:
    stable, canary = process_pair
    tell(stable, to=url(canary), share=share)
    load = Load(stable.http_port)
    await load.run(20_000)
    assert load.failures == []
    assert load.answers.total() == 20_000
    assert abs(load.answers["canary"] / 20_000 - share) < 0.005
    counted = requests_by_outcome(canary)["ok"], requests_by_outcome(stable)["ok"], forwarded(stable)["forwarded"]
    assert counted == (load.answers["canary"], load.answers["stable"], load.answers["canary"])


async def test_the_share_is_changed_and_taken_back_under_load_at_once(
    process_pair: ProcessPair,
) -> None:
    stable, canary = process_pair
    load = Load(stable.http_port)
    running = asyncio.create_task(load.run(1_000_000))
    for share in (0.1, 0.5, 1.0, 0.25):
        await asyncio.to_thread(tell, stable, to=url(canary), share=share)
        await load.reach(500)
        counts = (await asyncio.to_thread(told, stable))["counts"]
        # Those under way are seen and not yet answered.
        assert abs(counts["forwarded"] - share * counts["seen"]) <= 26 + 16
    await asyncio.to_thread(call, stable.admin_port, "DELETE", "/v2/forward")
    await load.reach(16)
    before = load.answers["canary"]
    await load.reach(500)
    assert load.answers["canary"] == before
    await load.stop(running)
    assert load.failures == []


async def test_each_of_several_workers_forwards_its_share(start_process: StartProcess) -> None:
    canary = start_process("iris", PENSTOCK_REVISION="canary")
    stable = start_workers(start_process, "iris")
    canary.ready()
    assert tell(stable, to=url(canary), share=0.25).status == 200
    load = Load(stable.http_port)
    await load.run(2000, clients=32)
    assert load.failures == []
    assert abs(load.answers["canary"] - 500) <= WORKERS * 26
    assert forwarded(stable)["forwarded"] == requests_by_outcome(canary)["ok"] == load.answers["canary"]
    assert requests_by_outcome(stable)["ok"] == load.answers.total() - load.answers["canary"]
    assert call(stable.admin_port, "DELETE", "/v2/forward").status == 200
    before = load.answers["canary"]
    await load.run(200, clients=32)
    assert load.answers["canary"] == before


async def test_a_target_that_is_killed_under_load_costs_no_request_and_gets_its_share_again(
    process_pair: ProcessPair, start_process: StartProcess
) -> None:
    stable, canary = process_pair
    port = canary.http_port
    tell(stable, to=url(canary), share=0.5)
    load = Load(stable.http_port)
    running = asyncio.create_task(load.run(1_000_000))
    await load.reach(1000)
    canary.kill()
    killed = load.answers["canary"]
    await load.reach(2000)
    state = await asyncio.to_thread(told, stable)
    assert state["counts"]["fallback"] > 500
    assert state["target"]["failing"] == 1
    assert load.answers["canary"] <= killed + 16
    again = start_process("iris", "--http-port", str(port), PENSTOCK_REVISION="canary")
    await asyncio.to_thread(again.ready)
    await until(lambda: load.answers["canary"] >= killed + 500)
    await load.stop(running)
    assert load.failures == []
    assert load.slowest < 5
    messages = stable.messages()
    assert messages.count("the target gives no answer; its requests are answered here") == 1
    assert messages.count("the target answers again") == 1


async def test_a_dead_address_does_not_cost_each_request_its_time(process_pair: ProcessPair) -> None:
    stable, _ = process_pair
    with socket.socket() as full:
        # A queue of one that nobody empties: further connections are neither accepted nor refused.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            tell(stable, to=f"http://127.0.0.1:{port}", share=1)
            load = Load(stable.http_port)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await load.run(1000, clients=2)
            assert load.failures == []
            assert load.answers == {"stable": 1000}
            assert 0.25 <= load.slowest < 5
            # Two wait 0.25 s at first, one after each pause of a second or more; were it all, it took 125 s.
            assert loop.time() - begun < 60
            state = await asyncio.to_thread(told, stable)
            assert state["fallback_reasons"] == {"unreachable": 1000}
