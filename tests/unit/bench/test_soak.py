"""Whether a soak run's samples are judged rightly, and told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.server.host import Host
from bench.soak.report import Result, text_of, write
from bench.soak.samples import Sample, judge, look

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


@pytest.mark.parametrize(("failed", "errors", "passed"), [(0, "", True), (1, "", False), (0, "3 reads failed", False)])
def test_the_report_tells_what_failed(tmp_path: Path, failed: int, errors: str, passed: bool) -> None:
    found = samples([100.0] * 40)
    result = Result(40_000, 40, failed, 40, errors, 10.0, judge(found), found, HOST)
    assert result.passed is passed
    assert text_of(result).endswith("Passed." if passed else "FAILED.")
    write(result, tmp_path, "make soak")
    assert text_of(result) in (tmp_path / "soak.md").read_text()
    assert len(json.loads((tmp_path / "soak.json").read_text())["samples"]) == 40
    assert (tmp_path / "soak.svg").read_text().startswith("<?xml")
