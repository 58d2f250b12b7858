"""The page, its numbers and its verdicts; the record it is made from; the pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pytest

from bench.server.cases import BARE, KSERVE, MLSERVER, PENSTOCK
from bench.server.host import Host, pinned_version
from bench.server.overload import Flood
from bench.server.plot import draw_all
from bench.server.record import Asked, Record
from bench.server.report import read_notes, render, table
from bench.server.screen import Screen
from bench.server.shadow import Shadowed
from bench.server.starting import Start
from bench.server.stats import Run
from bench.server.workers import ONE_CORE, SETUPS, Scaled

HOST = Host(
    "2026-01-02 03:04 UTC", "abc123", "A CPU", 2, 8.0, "Linux 6", "3.11.7", {"onnxruntime": "1.32.0", "wrk": "4.1.0"}
)
FLOOD = Flood(PENSTOCK, "convnet, binary", 100.0, 300.0, 80.0, 0.1, 0.9, 600, 0.001, 0.004, 0, 3, 0, 0.001, 0.0)


SCALED = Scaled("convnet", ONE_CORE.title, 100.0, 0.02, 0.03, 0.01, 0.25, 0.0)
SHADOWED = Shadowed("iris", False, 2000.0, 0.001, 0.004, 0.0001, 0.0002, 0.01)


def scaled(setup: str, *rates: float, **more: Any) -> list[Scaled]:
    return [replace(SCALED, setup=setup, rate=rate, cpu=1 / rate, **more) for rate in rates]


def run(case: str, server: str, rate: float, **more: object) -> Run:
    return replace(Run(case, server, rate, 0.01, 0.02, 1 / rate, 0.95, 0.01), **more)  # type: ignore[arg-type]


@pytest.fixture
def record() -> Record:
    runs = [
        run("iris-json-64", PENSTOCK, 9000.0), run("iris-json-64", PENSTOCK, 11000.0, p99=0.5),
        run("iris-json-64", MLSERVER, 1000.0), run("iris-json-64", KSERVE, 800.0, errors="5 answers were no 2xx"),
        run("iris-json-64", BARE, 20000.0),
    ]  # fmt: skip
    skipped = [("iris-grpc-64", server, "not served") for server in (PENSTOCK, MLSERVER, KSERVE, BARE)]
    return Record(
        HOST, "make bench-server", 2, 4, [Asked("iris", "a forest", 0.0, 85, 120)], runs, skipped,
        [Start(PENSTOCK, 0.5, 0.4, 0.6, 81.2, 0.0), Start(MLSERVER, 1.3, 1.2, 1.4, 170.0, 0.0)], [FLOOD],
        [SCALED], [SHADOWED, replace(SHADOWED, shadowed=True, seen=9, agreed=9)],
    )  # fmt: skip


def rows(page: str, first: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(f"| {first}")]


def test_the_table_has_medians_bars_and_verdicts(record: Record) -> None:
    page = render(record, "How.", {}, [])
    first = rows(page, "iris, JSON, 64 connections")[0]
    assert first == ("| iris, JSON, 64 connections | 10,000 ±10% | 1,000 ±0% | **void**: 5 answers were no 2xx "
                     "| 20,000 ±0% | >= 5 x the best peer | 10.00 x (MLServer) | pass |")  # fmt: skip
    assert "|  |  |  |  |  | >= 0.8 x bare stack | 0.50 x | **miss** |" in page
    assert "| iris, gRPC, 64 at once | not served | not served | not served | not served |" in page
    assert "Bars: 6 pass, 3 miss, 1 not measured." in page
    assert "not quiet" not in page


def test_latency_and_cpu_time_stand_beside_it(record: Record) -> None:
    page = render(record, "How.", {}, [])
    row = rows(page, "iris, JSON, 64 connections")[1]
    assert row == ("| iris, JSON, 64 connections | 10.00 / 260.00; 101 | 10.00 / 20.00; 1,000 |  "
                   "| 10.00 / 20.00; 50 | 9.90 x, 0.50 x |")  # fmt: skip


def test_start_overload_machine_and_method_are_told(record: Record) -> None:
    page = render(record, "How it was done.", {}, ["a.svg"])
    assert "| Penstock | 0.50 (0.40 to 0.60) | 81 | <= 0.8 s to ready: pass; <= 100 MB idle: pass |" in page
    assert "goodput >= 90% of capacity: 80.0%, **miss**" in page
    assert "- A CPU, 2 cores, 8 GB; Linux 6; Python 3.11.7" in page
    assert "- onnxruntime 1.32.0, wrk 4.1.0" in page
    assert "How it was done." in page
    assert "![a.svg](a.svg)" in page


def test_a_server_that_could_not_be_overloaded_is_told(record: Record) -> None:
    record.floods.append(replace(FLOOD, server=KSERVE, capacity=0.0, void="no answers"))
    assert "| KServe SDK, convnet, binary | **void**: no answers |" in render(record, "How.", {}, [])


def test_what_is_missed_is_explained_by_the_notes_or_said_not_to_be(record: Record) -> None:
    page = render(record, "How.", {"iris-json-64": "It is the ids.", "iris-json-1": "Unused."}, [])
    explained = page.split("## Bars that were missed")[1].split("## Method")[0]
    assert "### iris, JSON, 64 connections\n\nMissed: >= 0.8 x bare stack: 0.50 x; p99 <= p50" in explained
    assert "It is the ids." in explained
    assert "Unused." not in explained
    assert "### overload\n\nMissed: goodput >= 90% of capacity: 80.0%.\n\nNot explained yet." in explained


def test_a_busy_machine_is_told_and_gets_no_verdicts(record: Record) -> None:
    record.runs = [replace(each, foreign=0.4) for each in record.runs]
    page = render(record, "How.", {}, [])
    assert "**The machine was not quiet:** other processes took up to 40%" in page
    assert "| >= 5 x the best peer | 10.00 x (MLServer) | noisy |" in page


def test_a_record_survives_its_file(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "r.json")
    assert Record.read(tmp_path / "r.json") == record


def test_a_record_that_is_older_than_two_cores_and_shadows_is_read(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "r.json")
    told = orjson.loads((tmp_path / "r.json").read_bytes())
    del told["scaled"], told["shadowed"]
    (tmp_path / "old.json").write_bytes(orjson.dumps(told))
    old = Record.read(tmp_path / "old.json")
    assert old == replace(record, scaled=[], shadowed=[])
    page = render(old, "How.", {}, [])
    assert "## A second core" not in page
    assert "## Shadowing" not in page


def test_two_cores_are_compared_round_by_round(record: Record) -> None:
    one, threads, workers = (setup.title for setup in SETUPS)
    record.scaled = [*scaled(one, 100.0, 50.0, 100.0), *scaled(threads, 150.0, 90.0, 160.0, foreign=0.3),
                     *scaled(workers, 190.0, 80.0, 180.0, client=0.5)]  # fmt: skip
    page = render(record, "How.", {}, [])
    assert "| convnet: one core | 100 (50 to 100) |  |  | 10,000 | 20.00 / 30.00 | 0.25 | 0% |" in page
    assert ("| convnet: two cores, one process | 150 (90 to 160) | 1.60 (1.50 to 1.80) x | 1.60 x | 6,667 "
            "| 20.00 / 30.00 | 0.25 | **30%, noisy** |") in page  # fmt: skip
    assert "| convnet: two cores, `--workers 2` | 180 (80 to 190) | 1.80 (1.60 to 1.90) x | 1.60 x |" in page


def test_a_setup_that_fails_is_void_and_nothing_is_compared_with_it(record: Record) -> None:
    one, threads, workers = (setup.title for setup in SETUPS)
    record.scaled = [*scaled(one, 1.0), *scaled(threads, 2.0, errors="2 reads failed"), *scaled(workers, 2.0)]
    page = render(record, "How.", {}, [])
    assert "| convnet: two cores, one process | **void**: 2 reads failed |  |  |  |  |  |  |" in page
    assert "| convnet: two cores, `--workers 2` | 2 | 2.00 x |" in page
    record.scaled = [*scaled(one, 1.0, errors="no answers"), *scaled(workers, 2.0)]
    assert "`--workers 2` | **void**: no answers |" in render(record, "How.", {}, [])


def test_users_with_and_without_a_shadow(record: Record) -> None:
    copied = replace(SHADOWED, shadowed=True, p99=0.005, cpu=0.00025, seen=100, agreed=90, disagreed=4, dropped=6)
    record.shadowed = [SHADOWED, copied, replace(SHADOWED, p50=0.003), replace(copied, failed=3, agreed=87)]
    page = render(record, "How.", {}, [])
    assert ("| iris: no shadow | 2,000 | 2.00 (1.00 to 3.00) | 4.00 (4.00 to 4.00) | 100 (100 to 100) |  | 0.20 | 1% |"
            in page)  # fmt: skip
    assert ("| iris: every request copied | 2,000 | 1.00 (1.00 to 1.00) | 5.00 (5.00 to 5.00) | 250 (250 to 250) "
            "| 185 compared, 177 agreed, 12 dropped, 3 failed | 0.20 | 1% |") in page  # fmt: skip
    record.shadowed.append(replace(copied, void="the client was 30 ms late"))
    assert "| iris: every request copied | **void**: the client was 30 ms late |" in render(record, "How.", {}, [])


def test_a_run_of_extras_alone_has_no_empty_tables(record: Record) -> None:
    record.runs, record.skipped, record.starts, record.floods = [], [], [], []
    page = render(record, "How.", {}, [])
    assert "Bars: none." in page
    assert "## What was asked for" not in page
    assert "## A second core" in page


def test_pictures_are_svg_and_the_same_for_the_same_numbers(record: Record, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    for folder in (one, two):
        folder.mkdir()
        names = draw_all(record.cases, record.cells(), folder)
    assert names == ["server-throughput.svg", "server-latency.svg"]
    for name in names:
        assert ET.parse(one / name).getroot().tag.endswith("svg")  # noqa: S314 - our own
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert "iris, JSON, 64 connections" in (one / names[0]).read_text()
    assert draw_all([], {}, tmp_path) == []


def test_notes_by_heading() -> None:
    assert read_notes("# Notes\n\nFor you.\n\n## a-1\nOne.\n\nTwo.\n\n## start\n\nSlow.\n") == {
        "a-1": "One.\n\nTwo.", "start": "Slow.",
    }  # fmt: skip
    assert read_notes("# Notes\n") == {}


def test_a_table_has_no_cell_that_breaks_it() -> None:
    assert table(("a", "b"), [("x|y", "z")]) == "| a | b |\n|---|---|\n| x/y | z |"


def test_a_version_from_a_lock_file() -> None:
    lock = "mlserver-x==9 \\\nmlserver==1.7.1 \\\n    --hash=sha256:00\n"
    assert pinned_version(lock, "mlserver") == "1.7.1"
    assert pinned_version(lock, "kserve") == "?"


def test_without_a_terminal_every_step_is_a_line(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(record.cases, record.cells, plain=True) as screen:
        screen.tell("iris: starting penstock")
    assert capsys.readouterr().err.endswith(" s  iris: starting penstock\n")
