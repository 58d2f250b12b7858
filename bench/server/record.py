"""All that one run of the benchmark found, as JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench.server.cases import CASES, Case
from bench.server.host import Host
from bench.server.overload import Flood
from bench.server.shadow import Shadowed
from bench.server.starting import Start
from bench.server.stats import Cell, Run, cells_of
from bench.server.workers import Scaled


@dataclass(frozen=True, slots=True)
class Asked:
    """A model and what a request for a row of it weighs, in bytes."""

    name: str
    text: str
    mflop: float
    json_bytes: int
    binary_bytes: int


@dataclass(slots=True)
class Record:
    """One run. `skipped` holds case, server, and why it was not measured; `command` is what makes it again.

    `scaled` and `shadowed` are empty in files that are older than they.
    """

    host: Host
    command: str
    rounds: int
    seconds: int
    models: list[Asked] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    floods: list[Flood] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    shadowed: list[Shadowed] = field(default_factory=list)

    @property
    def cases(self) -> list[Case]:
        """The cases that it has anything about."""
        seen = {run.case for run in self.runs} | {case for case, _, _ in self.skipped}
        return [case for case in CASES if case.id in seen]

    def cells(self) -> dict[str, dict[str, Cell]]:
        """Return medians by case and server."""
        return cells_of(self.runs, {(case, server): why for case, server, why in self.skipped}, self.cases)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    @classmethod
    def read(cls, path: Path) -> Record:
        """Return what `write` wrote; raises ValueError, TypeError or KeyError for anything else."""
        told: dict[str, Any] = orjson.loads(path.read_bytes())
        return cls(
            host=Host(**told["host"]), command=told["command"], rounds=told["rounds"], seconds=told["seconds"],
            models=[Asked(**each) for each in told["models"]],
            runs=[Run(**each) for each in told["runs"]],
            skipped=[(case, server, why) for case, server, why in told["skipped"]],
            starts=[Start(**each) for each in told["starts"]],
            floods=[Flood(**each) for each in told["floods"]],
            scaled=[Scaled(**each) for each in told.get("scaled", [])],
            shadowed=[Shadowed(**each) for each in told.get("shadowed", [])],
        )  # fmt: skip
