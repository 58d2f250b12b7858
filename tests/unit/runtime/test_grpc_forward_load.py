"""Forwarding under load over gRPC: the share is exact, changes at once, and no call fails whatever the target does."""

from __future__ import annotations

import asyncio

from tests.unit.runtime.conftest import ProcessPair, StartProcess
from tests.unit.runtime.forwarding import forwarded, tell, told, where
from tests.unit.runtime.grpc_load import GrpcLoad
from tests.unit.runtime.load import Load, until
from tests.unit.runtime.process import call
from tests.unit.runtime.scrape import requests_by_outcome


async def test_the_share_of_20000_requests_over_both_protocols_at_once_is_exact(process_pair: ProcessPair) -> None:
    stable, canary = process_pair
    tell(stable, **where(canary), share=0.05)
    grpc, http = GrpcLoad(stable.grpc_port), Load(stable.http_port)
    await asyncio.gather(grpc.run(10_000), http.run(10_000))
    assert grpc.failures == http.failures == []
    counted = grpc.answers + http.answers
    assert counted.total() == 20_000
    # The carry begins anywhere within one request.
    assert abs(counted["canary"] - 1000) <= 1
    assert min(grpc.answers["canary"], http.answers["canary"]) > 250
    told_of = requests_by_outcome(canary)["ok"], requests_by_outcome(stable)["ok"], forwarded(stable)["forwarded"]
    assert told_of == (counted["canary"], counted["stable"], counted["canary"])


async def test_the_share_is_changed_and_taken_back_under_load_at_once(process_pair: ProcessPair) -> None:
    stable, canary = process_pair
    load = GrpcLoad(stable.grpc_port)
    running = asyncio.create_task(load.run(1_000_000))
    for share in (0.1, 0.5, 1.0, 0.25):
        await asyncio.to_thread(tell, stable, **where(canary), share=share)
        await load.reach(500)
        counts = (await asyncio.to_thread(told, stable))["counts"]
        # Those under way are seen and not yet answered.
        assert abs(counts["forwarded"] - share * counts["seen"]) <= 26 + 16
    await asyncio.to_thread(call, stable.admin_port, "DELETE", "/v2/forward")
    before = load.answers["canary"]
    await load.reach(500)
    # Each client may have had one under way.
    assert load.answers["canary"] <= before + 16
    await load.stop(running)
    assert load.failures == []


async def test_a_target_that_is_killed_under_load_costs_no_call_and_gets_its_share_again(
    process_pair: ProcessPair, start_process: StartProcess
) -> None:
    stable, canary = process_pair
    port = canary.grpc_port
    tell(stable, **where(canary), share=0.5)
    load = GrpcLoad(stable.grpc_port)
    running = asyncio.create_task(load.run(1_000_000))
    await load.reach(1000)
    await asyncio.to_thread(canary.kill)
    killed = load.answers["canary"]
    await load.reach(1000)
    state = await asyncio.to_thread(told, stable)
    assert state["counts"]["fallback"] > 200
    assert state["target_grpc"]["failing"]
    assert load.answers["canary"] <= killed + 16
    again = start_process("iris", "--grpc-port", str(port), PENSTOCK_REVISION="canary")
    await asyncio.to_thread(again.ready)
    await until(lambda: load.answers["canary"] >= killed + 200)
    await load.stop(running)
    assert load.failures == []
    assert load.slowest < 5
    messages = stable.messages()
    assert messages.count("the target gives no answer; its requests are answered here") == 1
    assert messages.count("the target answers again") == 1


async def test_a_target_that_leaves_in_good_order_under_load_costs_no_call(
    process_pair: ProcessPair, start_process: StartProcess
) -> None:
    stable, _ = process_pair
    canary = start_process("iris", "--drain-seconds", "1", PENSTOCK_REVISION="canary").ready()
    tell(stable, **where(canary), share=1)
    load = GrpcLoad(stable.grpc_port)
    running = asyncio.create_task(load.run(1_000_000))
    await load.reach(1000)
    canary.terminate()
    assert await asyncio.to_thread(canary.wait_exit) == 0
    await load.reach(500)
    await load.stop(running)
    assert load.failures == []
    assert load.answers["stable"] > 0
