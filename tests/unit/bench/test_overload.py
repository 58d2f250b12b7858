"""The open-loop client against a real server, and the verdicts on what it tells."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from bench.server.measure import Load
from bench.server.open_loop import Client, due_times
from bench.server.overload import Flood, flood_of, judge_flood, whole_request

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
RUDE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
LATE = b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
FLOOD = Flood("penstock", "", capacity=100.0, offered=300.0, goodput=95.0, accepted_p50=0.1, accepted_p99=0.9,
              refused=600, refusal_p50=0.001, refusal_p99=0.004, without_retry_after=0, late=0, lost=0, lag=0.001,
              foreign=0.0)  # fmt: skip


async def flooded(
    answers: list[bytes | None], rate: float = 400, seconds: float = 0.5, *, random: bool = False
) -> dict[str, Any]:
    """Send to a server that gives `answers` in turn; None breaks the connection."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                answer = answers[served % len(answers)]
                served += 1
                if answer is None:
                    break
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await Client(port, REQUEST, rate, seconds, connections=20, random=random).run()


async def test_every_request_is_sent_at_its_time_and_counted_by_its_answer() -> None:
    told = await flooded([OK, FULL, FULL, RUDE])
    assert told["due"] == 200
    assert told["statuses"] == {"200": 50, "429": 100, "503": 50, "lost": 0}
    assert (told["ok"]["count"], told["refused"]["count"]) == (50, 150)
    assert told["without_retry_after"] == 50
    assert 0 < told["ok_in_time"] <= 50
    assert 0 < told["refused"]["p50"] <= told["refused"]["p99"]


async def test_requests_at_random_times_are_all_sent() -> None:
    told = await flooded([OK], random=True)
    assert told["statuses"] == {"200": 200, "lost": 0}
    assert 0 < told["ok"]["p50"] <= told["ok"]["p99"]


def test_when_requests_are_due() -> None:
    assert due_times(4, 1.5, random=False) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    due = due_times(1000, 2.0, random=True)
    assert due == due_times(1000, 2.0, random=True) == sorted(due)
    assert (len(due), due[0] >= 0, due[-1] < 2.0) == (2000, True, True)
    gaps = [after - before for before, after in pairwise(due)]
    # Of independent users: the standard deviation of the gaps is their mean, and the two halves have as many.
    assert stdev(gaps) == pytest.approx(0.001, rel=0.1)
    assert sum(time < 1.0 for time in due) == pytest.approx(1000, abs=100)


async def test_broken_connections_are_lost_requests() -> None:
    told = await flooded([OK, None])
    assert told["statuses"]["200"] == told["statuses"]["broken"] == 100


async def test_nobody_listens() -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    told = await Client(port, REQUEST, 100, 0.2, connections=20).run()
    assert told["statuses"] == {"refused to connect": 20, "lost": 0}


async def test_what_is_told_becomes_a_flood() -> None:
    told = await flooded([OK, FULL, LATE, RUDE])
    flood = flood_of("penstock", "convnet", (100.0, 300.0), told, 0.01)
    assert flood.goodput == told["ok_in_time"] / 0.5
    assert (flood.refused, flood.late, flood.lost, flood.without_retry_after) == (100, 50, 0, 50)


def test_a_flood_that_is_handled_passes_every_bar() -> None:
    assert [each.verdict for each in judge_flood(FLOOD)] == ["pass"] * 4


@pytest.mark.parametrize(
    ("changes", "missed"),
    [({"goodput": 89.0}, 0), ({"refusal_p99": 0.006}, 1), ({"lost": 1}, 2), ({"without_retry_after": 1}, 2),
     ({"accepted_p99": 1.01}, 3)],
)  # fmt: skip
def test_each_bar_can_be_missed(changes: dict[str, float], missed: int) -> None:
    verdicts = [each.verdict for each in judge_flood(replace(FLOOD, **changes))]  # type: ignore[arg-type]
    assert [index for index, verdict in enumerate(verdicts) if verdict == "miss"] == [missed]


def test_a_late_client_or_a_busy_machine_says_nothing_about_the_server() -> None:
    assert {each.verdict for each in judge_flood(replace(FLOOD, lag=0.2))} == {"void"}
    assert {each.verdict for each in judge_flood(replace(FLOOD, foreign=0.2))} >= {"noisy"}


def test_a_server_that_fails_before_is_void() -> None:
    void = replace(FLOOD, goodput=0.0, capacity=0.0, void="it fails before it is overloaded: no answers")
    assert {(each.verdict, each.reached) for each in judge_flood(void)} == {("void", void.void)}


def test_a_whole_request(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"\x00\r\n\xff")
    request = whole_request(Load(body, tmp_path / "script", {"content-type": "a/b"}, {}))
    assert request == (
        b"POST /v2/models/m/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 4\r\ncontent-type: a/b\r\n\r\n"
        b"\x00\r\n\xff"
    )
