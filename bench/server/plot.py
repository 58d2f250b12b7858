"""The pictures beside the report: throughput, and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.server.cases import ALONE, BARE, KSERVE, LEAN, MLSERVER, MLSERVER_BATCHING, PENSTOCK, TITLES, Case
from bench.server.stats import Cell

COLORS = {
    PENSTOCK: "#1f77b4", LEAN: "#aec7e8", MLSERVER: "#ff7f0e", MLSERVER_BATCHING: "#ffbb78",
    KSERVE: "#2ca02c", BARE: "#7f7f7f", ALONE: "#c7c7c7",
}  # fmt: skip
_ACROSS = 4
Cells = Mapping[str, Mapping[str, Cell]]


def draw_all(cases: Sequence[Case], cells: Cells, folder: Path) -> list[str]:
    """Write the SVGs into `folder`; return their names."""
    if not cases:
        return []
    _draw(cases, cells, folder / "server-throughput.svg", "answers/s (whiskers: least and most)", _throughput)
    _draw(cases, cells, folder / "server-latency.svg", "ms: bar p50, line p99", _latency)
    return ["server-throughput.svg", "server-latency.svg"]


def _throughput(axis: Any, names: Sequence[str], cells: Sequence[Cell]) -> None:
    colors = [COLORS[name] for name in names]
    spread = [[cell.rate - cell.least for cell in cells], [cell.most - cell.rate for cell in cells]]
    axis.bar(range(len(names)), [cell.rate for cell in cells], color=colors, yerr=spread, capsize=3)


def _latency(axis: Any, names: Sequence[str], cells: Sequence[Cell]) -> None:
    colors = [COLORS[name] for name in names]
    axis.bar(range(len(names)), [cell.p50 * 1e3 for cell in cells], color=colors)
    for at, cell in enumerate(cells):
        axis.plot([at, at], [cell.p50 * 1e3, cell.p99 * 1e3], color="black", linewidth=1, marker="_")


def _draw(
    cases: Sequence[Case], cells: Cells, path: Path, what: str,
    fill: Callable[[Any, Sequence[str], Sequence[Cell]], None],
) -> None:  # fmt: skip
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    down = -(-len(cases) // _ACROSS)
    # The same numbers make the same file.
    with mpl.rc_context({"svg.hashsalt": "penstock", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(13, 2.6 * down), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(down, _ACROSS, squeeze=False).ravel()
        for axis in axes[len(cases) :]:
            axis.set_axis_off()
        for case, axis in zip(cases, axes, strict=False):
            row = {name: cell for name, cell in cells[case.id].items() if cell.counts}
            fill(axis, list(row), list(row.values()))
            axis.set_xticks(range(len(row)), [TITLES[name].replace(" ", "\n") for name in row], fontsize=7)
            axis.set_title(case.title.replace(": ", ":\n"), fontsize=8)
            axis.set_ylim(bottom=0)
            axis.grid(axis="y", alpha=0.25)
        figure.suptitle(what)
        figure.savefig(path, metadata={"Date": None})
