"""From a process's start to ready, and its memory once it idles."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.server.cases import BARE, KSERVE, MLSERVER, MOST_IDLE_MB, MOST_START_SECONDS, PENSTOCK
from bench.server.measure import Tell
from bench.server.models import ModelFile
from bench.server.processes import Meter, foreign_share
from bench.server.servers import Servers
from bench.server.stats import NOISY, Judged, judge_most

SERVERS = (PENSTOCK, MLSERVER, KSERVE, BARE)
IDLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """Medians of the starts of one server: seconds to ready, the least and the most, and MB of resident memory.

    `foreign` is the share of the core that others took meanwhile.
    """

    server: str
    seconds: float
    least: float
    most: float
    idle_mb: float
    foreign: float


def measure_starts(model: ModelFile, rounds: int, folder: Path, tell: Tell) -> list[Start]:
    """Start each server `rounds` times in turn, after one start that only fills caches."""
    seconds: dict[str, list[float]] = {name: [] for name in SERVERS}
    memory: dict[str, list[float]] = {name: [] for name in SERVERS}
    foreign: dict[str, list[float]] = {name: [] for name in SERVERS}
    for number in range(rounds + 1):
        for name in SERVERS:
            tell(f"start {number} of {rounds}: {name}" if number else f"first start: {name}")
            with Servers(model, folder) as servers:
                before = Meter.read([])
                server = servers.start(name)
                share = foreign_share(before, Meter.read(server.processes))
                time.sleep(IDLE_SECONDS)
                if number:
                    seconds[name].append(server.start_seconds)
                    # The bare stack's gRPC is a second process, which the others' one would have to be compared with.
                    memory[name].append(server.processes[0].resident_mb())
                    foreign[name].append(share)
    return [
        Start(
            name,
            median(seconds[name]),
            min(seconds[name]),
            max(seconds[name]),
            median(memory[name]),
            median(foreign[name]),
        )
        for name in SERVERS
    ]


def judge_start(start: Start) -> list[Judged]:
    """Return the bars of starting with their verdicts."""
    noisy = start.foreign > NOISY
    return [
        judge_most(f"<= {MOST_START_SECONDS:g} s to ready", round(start.seconds, 2), MOST_START_SECONDS,
                   f"{start.seconds:.2f} s", noisy=noisy),
        judge_most(f"<= {MOST_IDLE_MB:g} MB idle", round(start.idle_mb), MOST_IDLE_MB, f"{start.idle_mb:.0f} MB"),
    ]  # fmt: skip
