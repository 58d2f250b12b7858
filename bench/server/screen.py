"""What is being measured and what came of it so far: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.server.cases import ALONE, LEAN, MLSERVER_BATCHING, TITLES, Case
from bench.server.stats import Cell

_SHORT = {LEAN: "no counting", ALONE: "ORT", MLSERVER_BATCHING: "batching"}

Look = Callable[[], dict[str, dict[str, Cell]]]


class Screen:
    """A context manager; `tell` says what is being done. `look` returns what was measured so far."""

    def __init__(self, cases: Sequence[Case], look: Look, *, plain: bool) -> None:
        """Show `cases`; nothing before the `with` block."""
        self._cases = cases
        self._look = look
        self._console = Console(highlight=False, stderr=True)
        self._began = time.monotonic()
        self._doing = ""
        live = self._console.is_terminal and not self._console.is_dumb_terminal and not plain
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=1) if live else None

    def tell(self, text: str) -> None:
        """Say what is being done."""
        self._doing = text
        if self._live is None:
            self._console.print(f"{time.monotonic() - self._began:6.0f} s  {text}", markup=False, soft_wrap=True)

    def _draw(self) -> Group:
        elapsed = time.monotonic() - self._began
        return Group(draw_table(self._cases, self._look()), Text(f"{elapsed:4.0f} s  {self._doing}"))

    def __enter__(self) -> Self:
        """Begin."""
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; the table stays."""
        if self._live is not None:
            self._live.stop()


def draw_table(cases: Sequence[Case], cells: dict[str, dict[str, Cell]]) -> Table:
    """Return answers a second by case and server."""
    names = [name for name in TITLES if any(name in case.servers for case in cases)]
    table = Table(box=None, pad_edge=False)
    table.add_column("answers/s")
    for name in names:
        table.add_column(_SHORT.get(name, TITLES[name]), justify="right")
    for case in cases:
        row = cells.get(case.id, {})
        table.add_row(case.id, *(_shown(row.get(name, Cell())) for name in names))
    return table


def _shown(cell: Cell) -> str:
    if cell.void:
        return "void"
    if cell.runs:
        return f"{cell.rate:,.0f}"
    return "" if cell.skipped in {"", "not measured"} else cell.skipped[:24]
