"""The supervisor of the informer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest

from penstock.core.objects import HTTP_ROUTE, MODEL_DEPLOYMENT, POD, Kind
from penstock.ports import ClusterError
from penstock.shell.watching import Watching
from tests.fakes.until import until


class Types:
    """The types of an API server."""

    def __init__(self, *kinds: Kind) -> None:
        self.kinds = set(kinds)
        self.down = False

    async def serves(self, kind: Kind, namespace: str = "") -> bool:
        if self.down:
            raise ClusterError("down")
        return kind in self.kinds


class Run:
    """One run of the informer."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = list(kinds)
        self.ready = False
        self.stopped = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> asyncio.Future[None]:
        self.ready = True
        return self.ended

    def stop(self) -> None:
        self.stopped = True
        if not self.ended.done():
            self.ended.set_result(None)


class Bench:
    def __init__(self, types: Types) -> None:
        self.types = types
        self.runs: list[Run] = []
        self.watching = Watching(types, self._make, (POD, HTTP_ROUTE), (), look_again=0.001, backoff=(0.001, 0.002))

    def _make(self, kinds: Sequence[Kind]) -> Run:
        self.runs.append(Run(kinds))
        return self.runs[-1]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    out = Bench(Types(MODEL_DEPLOYMENT, POD))
    task = asyncio.create_task(out.watching.run())
    yield out
    task.cancel()
    await asyncio.wait({task})
    assert all(run.stopped for run in out.runs)


async def test_watches_the_types_that_are_installed(bench: Bench) -> None:
    await until(lambda: bench.watching.ready)
    assert bench.runs[0].kinds == [MODEL_DEPLOYMENT, POD]


async def test_starts_again_when_it_ended(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await until(lambda: len(bench.runs) == 1)
        bench.runs[0].ended.set_exception(OSError("the connection broke"))
        await until(lambda: len(bench.runs) == 2)
        bench.runs[1].ended.set_result(None)
        await until(lambda: len(bench.runs) == 3)
    assert "the connection broke" in caplog.text


async def test_watches_a_type_that_is_installed_later(bench: Bench) -> None:
    await until(lambda: len(bench.runs) == 1)
    bench.types.kinds.add(HTTP_ROUTE)
    await until(lambda: len(bench.runs) == 2)
    assert bench.runs[0].stopped
    assert bench.runs[1].kinds == [MODEL_DEPLOYMENT, POD, HTTP_ROUTE]


async def test_an_outage_leaves_the_watches_alone(bench: Bench) -> None:
    await until(lambda: len(bench.runs) == 1)
    bench.types.down = True
    await asyncio.sleep(0.01)
    assert (len(bench.runs), bench.watching.ready) == (1, True)


async def test_waits_for_our_own_type(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Types(POD))
    task = asyncio.create_task(bench.watching.run())
    with caplog.at_level(logging.ERROR):
        await until(lambda: "install the CRDs" in caplog.text)
    assert (bench.runs, bench.watching.ready) == ([], False)
    bench.types.kinds.add(MODEL_DEPLOYMENT)
    await until(lambda: bench.watching.ready)
    task.cancel()
    await asyncio.wait({task})
