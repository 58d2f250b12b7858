"""The load generator against a server on loopback: what it sends, and that it counts every way to fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.load.feedback import LabelSender
from e2e.load.generator import Generator, Limits
from e2e.load.rows import Endpoint, prepare
from e2e.load.tally import Latency, Tally
from tests.unit.demo.stub_server import StubServer

Behaviour = tuple[int, dict[str, str], Any] | None
LIMITS = Limits()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two rows; the label is the first value."""
    path = tmp_path / "rows.npz"
    np.savez(path, rows=np.array([[3, 0.5], [4, 1]], np.float32), labels=np.array([3, 4]))
    return path


def echo(body: Any) -> Behaviour:
    """Predicts the first value of the row, as revision r1."""
    value = int(body["inputs"][0]["data"][0])
    headers = {"Penstock-Revision": "r1", "Penstock-Prediction-Id": f"p{value}"}
    return 200, headers, {"outputs": [{"name": "label", "data": [value]}]}


async def until(condition: Callable[[], object], tend: Callable[[], None] = lambda: None) -> None:
    """Wait for a condition that threads or sockets bring about, at most 20 s, tending something meanwhile."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
            tend()


async def run_until(server: StubServer, data: Path, count: int, limits: Limits = LIMITS) -> Tally:
    """Send until the server has had `count` requests, then stop."""
    tally = Tally()
    rows = prepare(Endpoint.parse(server.url, "m.example.com"), "m", data)
    generator = Generator(Endpoint.parse(server.url), rows, tally, limits=limits)
    generator.set_rate(500)
    await until(lambda: len(server.received) >= count, generator.sweep)
    await generator.close()
    return tally


async def test_sends_the_protocols_request_with_the_host_header(data: Path) -> None:
    async with StubServer(echo) as server:
        await run_until(server, data, 1)
    path, headers, body = server.received[0]
    assert path == "/v2/models/m/infer"
    assert headers["host"] == "m.example.com"
    assert body["inputs"][0]["shape"] == [1, 2]
    assert body["inputs"][0]["data"] in ([3, 0.5], [4, 1])


async def test_counts_right_answers_by_revision(data: Path) -> None:
    async with StubServer(echo) as server:
        tally = await run_until(server, data, 40)
    assert tally.sent == tally.ok >= 40
    assert tally.failures.total() == 0
    assert tally.totals()["revisions"]["r1"]["wrong"] == 0


async def test_counts_wrong_answers_by_revision(data: Path) -> None:
    def always_three(body: Any) -> Behaviour:
        return 200, {"penstock-revision": "bad"}, {"outputs": [{"name": "label", "data": [3]}]}

    async with StubServer(always_three) as server:
        tally = await run_until(server, data, 60)
    fours = sum(body["inputs"][0]["data"][0] == 4 for _, _, body in server.received)
    assert tally.totals()["revisions"]["bad"]["wrong"] == fours > 0


async def test_an_answer_without_a_label_is_wrong(data: Path) -> None:
    async with StubServer(lambda _: (200, {"penstock-revision": "r"}, {"outputs": []})) as server:
        tally = await run_until(server, data, 5)
    counts = tally.totals()["revisions"]["r"]
    assert counts["wrong"] == counts["ok"] > 0


async def test_counts_answers_other_than_2xx_with_their_text(data: Path) -> None:
    async with StubServer(lambda _: (503, {"penstock-revision": "r2"}, {"error": "busy"})) as server:
        tally = await run_until(server, data, 5)
    assert tally.ok == 0
    assert tally.failures == {"503": tally.sent}
    assert tally.totals()["revisions"]["r2"]["failed"] == tally.sent
    assert "busy" in tally.totals()["last_failures"][0]["detail"]


async def test_counts_resets(data: Path) -> None:
    async with StubServer(lambda _: None) as server:
        tally = await run_until(server, data, 5)
    assert tally.failures == {"reset": tally.sent}


async def test_counts_a_server_that_is_not_there(data: Path) -> None:
    async with StubServer(echo) as server:
        gone = Endpoint.parse(server.url)
    tally = Tally()
    generator = Generator(gone, prepare(gone, "m", data), tally)
    generator.set_rate(200)
    await until(lambda: tally.failures["refused"] >= 5)
    await generator.close()
    assert tally.ok == 0


async def test_counts_requests_that_are_never_answered(data: Path) -> None:
    silence = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], "m")
    tally = Tally()
    limits = Limits(connections=2, waiting=3, answer_seconds=0.2)
    generator = Generator(endpoint, prepare(endpoint, "m", data), tally, limits=limits)
    generator.set_rate(500)
    await until(lambda: tally.failures["timeout"] and tally.failures["unsent"], generator.sweep)
    await generator.close()
    silence.set()
    server.close()
    assert tally.ok == 0
    assert tally.failures.total() == tally.sent


async def test_reuses_connections_and_opens_no_more_than_allowed(data: Path) -> None:
    async with StubServer(echo) as server:
        tally = await run_until(server, data, 50, Limits(connections=3))
    assert server.connections <= 3
    assert tally.failures.total() == 0


async def test_sends_labels_after_the_delay_and_counts_what_became_of_them() -> None:
    taken = {"accepted": 2, "rejected": {"unmatched": 1, "duplicate": 0, "expired": 0}}
    counts: Counter[str] = Counter()
    async with StubServer(lambda _: (200, {}, taken)) as server:
        sender = LabelSender(Endpoint.parse(server.url), "m", 0.05, counts)
        now = asyncio.get_running_loop().time()
        for label in range(3):
            sender.add(f"p{label}", label, now)
        task = asyncio.create_task(sender.run())
        await until(lambda: counts["accepted"])
        task.cancel()
    path, _, body = server.received[0]
    assert path == "/v2/models/m/feedback"
    assert body == [{"id": f"p{i}", "label": i} for i in range(3)]
    assert counts == {"accepted": 2, "unmatched": 1, "duplicate": 0, "expired": 0}


async def test_posts_labels_again_when_a_post_fails() -> None:
    replies: list[Behaviour] = [None, (503, {}, {}), (200, {}, {"accepted": 1, "rejected": {}})]
    counts: Counter[str] = Counter()
    async with StubServer(lambda _: replies.pop(0)) as server:
        sender = LabelSender(Endpoint.parse(server.url), "m", 0, counts)
        sender.add("p", 1, asyncio.get_running_loop().time())
        task = asyncio.create_task(sender.run())
        await until(lambda: counts["accepted"])
        task.cancel()
    assert counts["failed posts (503)"] == counts["failed posts (no answer)"] == 1
    assert not counts["lost"]


def test_quantiles_are_right_within_five_percent() -> None:
    latency = Latency()
    for milliseconds in range(1, 1001):
        latency.add(milliseconds / 1000)
    assert latency.quantile_ms(0.5) == pytest.approx(500, rel=0.05)
    assert latency.quantile_ms(0.99) == pytest.approx(990, rel=0.05)
    assert Latency().quantile_ms(0.5) is None


def test_each_second_of_the_timeline_counts_its_own_requests_only() -> None:
    tally = Tally()
    tally.sent = 2
    tally.answered("r", 0.01, right=True)
    tally.answered("r", 0.01, right=False)
    first = tally.close_second(1.0)
    tally.sent = 3
    tally.failed("502", "", 1.5, "bad gateway")
    second = tally.close_second(2.0)
    assert (first["sent"], first["revisions"]["r"]["ok"], first["revisions"]["r"]["wrong"]) == (2, 2, 1)
    assert (second["sent"], second["revisions"]) == (
        1,
        {"": {"ok": 0, "wrong": 0, "failed": 1, "p50_ms": None, "p99_ms": None}},
    )
    assert tally.totals()["ok"] == 2


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "127.0.0.1:80", "ftp://x/"])
def test_refuses_urls_it_cannot_speak(url: str) -> None:
    with pytest.raises(ValueError, match="no URL such as"):
        Endpoint.parse(url)


def test_refuses_a_file_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", rows=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="must hold 'rows' and 'labels'"):
        prepare(Endpoint("h", 1, "h"), "m", tmp_path / "bad.npz")
