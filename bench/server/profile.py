"""Where a server's time goes while a case is asked: py-spy's samples, summed by function."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench.server.cases import Case
from bench.server.measure import check, drive, prepare
from bench.server.models import ModelFile
from bench.server.processes import CLIENT_CORE, pinned
from bench.server.servers import Servers
from e2e.cluster.console import Problem

RATE = 500
_LINE = re.compile(r":\d+(?=\)$)")


class Spent(NamedTuple):
    """The share of samples in a function itself, and in it with all that it called."""

    function: str
    own: float
    total: float


def profile(case: Case, name: str, model: ModelFile, seconds: int, folder: Path) -> Path:
    """Load server `name` with `case` for `seconds`; return the file of its samples, a stack a line and how often."""
    stacks = folder / f"{case.id}-{name}.stacks"
    with Servers(model, folder) as servers:
        server = servers.start(name)
        load = prepare(case, model, folder)
        wrong = check(case, server, load, model)
        if wrong:
            raise Problem(f"{name} cannot be asked {case.id}: {wrong}")
        drive(case, server, load, 1)
        index = -1 if case.protocol == "grpc" else 0
        spy = subprocess.Popen(
            pinned(CLIENT_CORE, [Path(sys.executable).with_name("py-spy"), "record", "--pid",
                                 str(server.processes[index].pid), "--rate", str(RATE), "--duration", str(seconds),
                                 "--format", "raw", "--nonblocking", "--output", str(stacks)]),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        drive(case, server, load, seconds + 1)
        _, said = spy.communicate(timeout=60)
        if spy.returncode:
            raise Problem(f"py-spy failed: {said.strip()[-300:]}", "it needs the right to trace processes: run as root")
    return stacks


def sum_up(lines: Iterable[str]) -> list[Spent]:
    """Return functions by the share of samples in themselves and the C code that they called, most first.

    `lines` are stacks, outermost frame first, and how often each was seen.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        if not stack:
            continue
        frames = [_LINE.sub("", frame) for frame in stack.split(";")]
        samples += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    return [Spent(frame, count / samples, total[frame] / samples) for frame, count in own.most_common()]
