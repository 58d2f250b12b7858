"""The load generator as a process: orders on stdin, a line a second, a report at the end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.load.process import ROOT, LoadProcess, Target
from tests.unit.demo.stub_server import StubServer
from tests.unit.demo.test_load import Behaviour, echo


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One row."""
    np.savez(tmp_path / "rows.npz", rows=np.array([[7, 0]], np.float32), labels=np.array([7]))
    return tmp_path / "rows.npz"


async def test_counts_takes_orders_and_leaves_a_report(data: Path) -> None:
    def behave(body: Any) -> Behaviour:
        return (200, {}, {"accepted": len(body), "rejected": {}}) if isinstance(body, list) else echo(body)

    async with StubServer(behave) as server:

        def use() -> tuple[int, int, dict[str, object]]:
            with LoadProcess(Target(server.url, "m", data, feedback_url=server.url, feedback_delay=0), 50) as load:
                first = load.next_second(timeout=30)["ok"]
                load.set_rate(200)
                second = load.next_second(timeout=30)["ok"]
                return first, second, load.stop()

        first, second, report = await asyncio.to_thread(use)
    assert 0 < first < second
    infers = [path for path, _, _ in server.received if path.endswith("/infer")]
    assert report["sent"] == report["ok"] == len(infers)
    assert report["failed"] == 0
    assert len(report["timeline"]) >= 2  # type: ignore[arg-type]
    assert any(path.endswith("/feedback") for path, _, _ in server.received)


def test_tells_why_it_cannot_start(tmp_path: Path) -> None:
    with (
        LoadProcess(Target("http://127.0.0.1:1", "m", tmp_path / "none.npz"), 1) as load,
        pytest.raises(RuntimeError, match=r"none\.npz"),
    ):
        load.next_second(timeout=30)


async def test_ends_by_itself_when_whoever_gave_the_orders_is_gone(data: Path) -> None:
    async with StubServer(echo) as server:
        words = [sys.executable, "-m", "e2e.load", *Target(server.url, "m", data).arguments()]
        process = await asyncio.create_subprocess_exec(
            *words, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30)
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 30) == 0
        await process.stdout.read()
