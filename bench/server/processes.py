"""Measured processes: pinned to a core, watched by the kernel's counters, ended for certain."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster.console import Problem, telling_line

_TICKS = os.sysconf("SC_CLK_TCK")
# The measured core, and the one of everything else.
SERVER_CORE, CLIENT_CORE = 0, 1
BOTH_CORES = (SERVER_CORE, CLIENT_CORE)
POLL_SECONDS = 0.002
START_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def pinned(cores: int | Sequence[int], words: Sequence[str | Path]) -> list[str]:
    """Return the command that runs `words` on one core or several, and no other."""
    cores = [cores] if isinstance(cores, int) else cores
    return ["taskset", "-c", ",".join(map(str, cores)), *map(str, words)]


class Process:
    """A server's process, as a rule on the measured core; its output goes to the file `log`."""

    def __init__(
        self, words: Sequence[str | Path], env: Mapping[str, str], log: Path,
        cores: int | Sequence[int] = SERVER_CORE, **pipes: Any,
    ) -> None:  # fmt: skip
        """Start it on `cores`."""
        self.log = log
        self.started = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                pinned(cores, words),
                env={**os.environ, **env},
                cwd=log.parent,
                stderr=out,
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends it
                **{"stdin": subprocess.DEVNULL, "stdout": out, **pipes},
            )
        self.pid = self._process.pid
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    def wait_ready(self, port: int, path: str) -> float:
        """Return the seconds from its start until `path` is answered with 200; Problem if it never is."""
        while (elapsed := time.perf_counter() - self.started) < START_SECONDS:
            if self._process.poll() is not None:
                raise Problem(f"a server ended at its start: {telling_line(self.log.read_text(errors='replace'))}",
                              f"its output is in {self.log}")  # fmt: skip
            if _answers(port, path):
                return time.perf_counter() - self.started
            time.sleep(POLL_SECONDS)
        raise Problem(f"a server was not ready after {elapsed:.0f} s", f"its output is in {self.log}")

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads and those of its child processes, until now."""
        return cpu_clock(self.pid) + sum(map(_clock_of_child, children_of(self.pid)))

    def resident_mb(self) -> float:
        """Return its own resident memory, in MB of 10^6 bytes."""
        return resident_of(Path(f"/proc/{self.pid}/status").read_text())

    def close(self) -> None:
        """End it at once, and its children with it."""
        if self._process.poll() is None:  # else its number may be another's
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                pipe.close()


def cpu_clock(pid: int) -> float:
    """Return the seconds of CPU time of all threads of a process; raises OSError if there is none of that number."""
    # The kernel's number for the CPU clock of a process (clock_getcpuclockid), which Python has no function for.
    return time.clock_gettime((~pid << 3) | 2)


def _clock_of_child(pid: int) -> float:
    with suppress(OSError):  # it ended in between
        return cpu_clock(pid)
    return 0.0


def children_of(pid: int) -> list[int]:
    """Return the processes that process `pid` has started and that still run."""
    found: list[int] = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread ended in between
            found += map(int, each.read_text().split())
    return found


def resident_of(status: str) -> float:
    """Return VmRSS of a /proc/PID/status in MB."""
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def busy_of(stat: str, core: int) -> float:
    """Return the seconds that `core` has been busy, stolen time included, by /proc/stat."""
    line = next(line for line in stat.splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) for word in line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


@dataclass(frozen=True, slots=True)
class Meter:
    """Counters at one moment: wall clock, CPU time of a server's processes, busy time of its cores; seconds."""

    at: float
    server: float
    core: float

    @classmethod
    def read(cls, processes: Sequence[Process], cores: Sequence[int] = (SERVER_CORE,)) -> Meter:
        """Return the counters now."""
        server = sum(process.cpu_seconds() for process in processes)
        stat = Path("/proc/stat").read_text()
        return cls(time.perf_counter(), server, sum(busy_of(stat, core) for core in cores))


def foreign_share(before: Meter, after: Meter, *, cores: int = 1, client: float = 0.0) -> float:
    """Return the share of the `cores` that went to others between two readings, 0 to 1.

    Others: neither the server nor, where it shares a core with it, the client, which had `client` seconds.
    """
    wall = (after.at - before.at) * cores
    foreign = (after.core - before.core) - (after.server - before.server) - client
    return min(1.0, max(0.0, foreign / wall)) if wall > 0 else 0.0


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
