"""What is read from the kernel, and processes that end before they are ready."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from bench.server.processes import (
    Meter,
    Process,
    busy_of,
    children_of,
    cpu_clock,
    foreign_share,
    free_ports,
    pinned,
    resident_of,
)
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


def test_the_share_of_two_cores_of_which_the_client_has_a_part() -> None:
    assert foreign_share(Meter(0.0, 1.0, 10.0), Meter(2.0, 3.6, 13.8), cores=2, client=0.4) == pytest.approx(0.2)


def test_cores_as_taskset_wants_them() -> None:
    assert pinned(1, ["a"]) == ["taskset", "-c", "1", "a"]
    assert pinned((0, 1), ["a", Path("b")]) == ["taskset", "-c", "0,1", "a", "b"]


def test_children_are_counted_and_end_with_their_process(tmp_path: Path) -> None:
    child = (
        "import hashlib, time\n"
        "while time.process_time() < 0.2: hashlib.sha256(bytes(100_000)).digest()\n"
        "print('burnt', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=False)"
    process = Process([sys.executable, "-c", parent], {}, tmp_path / "log", stdout=-1)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        (pid,) = children_of(process.pid)
        assert process.cpu_seconds() > cpu_clock(process.pid) + 0.19
    finally:
        process.close()
    end = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core only")
def test_a_process_may_have_both_cores(tmp_path: Path) -> None:
    process = Process(["cat"], {}, tmp_path / "log", (0, 1), stdin=-1, stdout=-1)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"on\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"on\n"
        assert os.sched_getaffinity(process.pid) == {0, 1}
    finally:
        process.close()


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
