"""Whether a soak run's samples are judged rightly, and told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.server.cases import Case
from bench.server.host import Host
from bench.soak.calls import Calls
from bench.soak.report import Result, Side, text_of, write
from bench.soak.samples import Sample, judge, look
from e2e.cluster.console import Problem

HOST = Host("2026-01-01", "abc", "cpu", 2, 8.0, "Linux", "3.11", {"onnxruntime": "1"})


def samples(memory: list[float], descriptors: int = 70, leak: int = 0) -> list[Sample]:
    return [
        Sample(1000 * number, each, descriptors + leak * number, 9) for number, each in enumerate(memory)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "flat"),
    [
        (samples([100.0] * 100), True),
        (samples([50.0, 60.0, 80.0, 95.0, *[100.0] * 96]), True),
        (samples([100.0 + 0.2 * number for number in range(100)]), False),
        (samples([100.0 + (number % 7) for number in range(100)]), True),
        (samples([100.0] * 100, leak=1), False),
    ],
)
def test_growth_is_seen_and_warming_up_is_not_taken_for_it(found: list[Sample], flat: bool) -> None:
    assert judge(found).flat is flat


def test_a_short_run_tells_nothing() -> None:
    with pytest.raises(ValueError, match="20 are needed"):
        judge(samples([100.0] * 19))


def test_a_process_is_looked_at() -> None:
    found = look(os.getpid(), 7)
    assert found.requests == 7
    assert 10 < found.memory_mb < 10_000
    assert found.descriptors >= 3
    assert found.threads >= 1


@pytest.mark.parametrize(
    ("failed", "over_http", "over_grpc", "calls", "passed"),
    [
        (0, "", "", 8_000, True),
        (1, "", "", 8_000, False),
        (0, "3 reads failed", "", 8_000, False),
        (0, "", "3 calls", 8_000, False),
        (0, "", "", 0, False),
    ],
)
def test_the_report_tells_what_failed(
    tmp_path: Path, failed: int, over_http: str, over_grpc: str, calls: int, passed: bool
) -> None:
    found = samples([100.0] * 40)
    http = Side(Case("h", "", "iris", "json", 64, ()), 32_000, over_http)
    grpc = Side(Case("g", "", "iris", "grpc", 4, (), 8), calls, over_grpc)
    result = Result(http, grpc, 40, failed, 40, 10.0, judge(found), found, HOST)
    assert result.passed is passed
    assert text_of(result).endswith("Passed." if passed else "FAILED.")
    write(result, tmp_path, "make soak")
    page = (tmp_path / "soak.md").read_text()
    assert text_of(result) in page
    assert "(64 connections, wrk)" in page
    assert (
        f"Over gRPC: {calls:,} ({calls / (32_000 + calls):.0%}); failed by the client's count: {over_grpc or 'none'}."
        in page
    )
    told = json.loads((tmp_path / "soak.json").read_text())
    assert (told["requests"], len(told["samples"])) == ({"http": 32_000, "grpc": calls}, 40)
    assert (tmp_path / "soak.svg").read_text().startswith("<?xml")


def h2load(data: int, then: str = "") -> list[str]:
    """Return a command that prints what h2load does of 100 calls with `data` bytes of answers, and does `then`."""
    text = f"""\
requests: 100 total, 100 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout
traffic: 79.10KB (81000) total, 1.00KB (1024) headers (space savings 40.74%), 1.00KB ({data}) data
"""
    return ["sh", "-c", f"echo '{text}'; {then}"]


def test_calls_are_made_round_after_round_and_those_without_an_answer_are_failed() -> None:
    calls = Calls(h2load(97 * 81), 100, 81)
    for rounds in range(1, 4):
        calls.keep_up()
        calls.finish(60)
        assert (calls.answered, calls.failed) == (97 * rounds, 3 * rounds)
    calls.close()
    assert calls.answered == 291


def test_a_round_is_left_alone_until_it_ends(tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    os.mkfifo(gate)
    calls = Calls(h2load(8100, f"echo >>{begun}; cat {gate}"), 100, 81)
    calls.keep_up()
    calls.keep_up()
    assert calls.answered == 0
    gate.write_text("")  # which waits for a reader
    calls.finish(60)
    assert calls.answered == 100
    assert begun.read_text() == "\n"


def test_a_round_without_an_end_and_one_that_fails_are_told() -> None:
    calls = Calls(h2load(0, "exec sleep 60"), 100, 81)
    calls.keep_up()
    with pytest.raises(Problem, match=r"had no end within 0\.1 s"):
        calls.finish(0.1)
    calls.close()
    calls = Calls(["sh", "-c", "echo no such host; exit 1"], 100, 81)
    calls.keep_up()
    with pytest.raises(Problem, match="h2load failed: no such host"):
        calls.finish(60)
    calls.close()
