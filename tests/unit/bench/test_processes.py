"""What is read from the kernel, and processes that end before they are ready."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from bench.server.processes import Meter, Process, busy_of, foreign_share, free_ports, resident_of
from e2e.cluster.console import Problem

STAT = """\
cpu  900 0 0 9000 0 0 0 0 0 0
cpu0 100 20 30 5000 7 4 5 6 0 0
cpu1 800 0 0 4000 0 0 0 0 0 0
"""


def test_busy_time_of_a_core_counts_all_but_idle_and_waiting() -> None:
    assert busy_of(STAT, 0) == pytest.approx(1.65)
    assert busy_of(STAT, 1) == pytest.approx(8.0)


def test_resident_memory() -> None:
    assert resident_of("Name:\tpython\nVmRSS:\t   78200 kB\nRssAnon:\t 1 kB\n") == pytest.approx(80.0768)


def test_the_share_of_the_core_that_others_had() -> None:
    assert foreign_share(Meter(0.0, 1.0, 10.0), Meter(2.0, 2.5, 11.9)) == pytest.approx(0.2)
    assert foreign_share(Meter(0.0, 1.0, 10.0), Meter(2.0, 3.01, 12.0)) == 0.0


def test_cpu_time_of_a_process_is_that_of_all_its_threads(tmp_path: Path) -> None:
    burn = (
        "import hashlib, sys, threading, time\n"
        "def burn():\n"
        "    while time.thread_time() < 0.2: hashlib.sha256(bytes(100_000)).digest()\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        "print(time.process_time(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = Process([sys.executable, "-c", burn], {}, tmp_path / "log", stdin=-1, stdout=-1)
    try:
        assert process.stdout is not None
        said = float(process.stdout.readline())
        assert process.cpu_seconds() == pytest.approx(said, abs=0.05)
        assert process.cpu_seconds() > 0.2
        assert process.resident_mb() > 1
    finally:
        process.close()


def test_a_server_that_ends_at_its_start_is_told_with_its_reason(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('error: the model is missing')"]
    process = Process(words, {}, tmp_path / "log")
    began = time.monotonic()
    try:
        with pytest.raises(Problem, match="ended at its start: error: the model is missing"):
            process.wait_ready(free_ports(1)[0], "/")
    finally:
        process.close()
    assert time.monotonic() - began < 30


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5
