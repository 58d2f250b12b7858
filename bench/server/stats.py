"""From measured runs to rows of a table, and from rows to verdicts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from bench.server.cases import BEST_PEER, PEERS, PENSTOCK, TITLES, Bar, Case

# More than this share of the measured core went to others: the rate says more about them.
NOISY = 0.1
NOT_MEASURED = "not measured"
Verdict = Literal["pass", "miss", "noisy", "void", "not measured"]


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run of a server: answers a second, latencies and CPU time an answer in seconds.

    `busy`: the share of its core that the server used; `foreign`: that others used; `errors`: what makes it void.
    """

    case: str
    server: str
    rate: float
    p50: float
    p99: float
    cpu: float
    busy: float
    foreign: float
    errors: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """All runs of one server in one case: medians, and the least and the most rate.

    `foreign` is the median share of the core that others took. `void` says what makes the runs worthless: then no
    ratio is made of them. `skipped` says why there are none.
    """

    rate: float = 0.0
    least: float = 0.0
    most: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    cpu: float = 0.0
    foreign: float = 0.0
    runs: int = 0
    void: str = ""
    skipped: str = ""

    @property
    def counts(self) -> bool:
        """Whether there is a number to compare."""
        return bool(self.runs) and not self.void


def cell_of(runs: Sequence[Run], skipped: str = "") -> Cell:
    """Return the cell of `runs` of one server in one case."""
    if not runs:
        return Cell(skipped=skipped or NOT_MEASURED)
    rates = [run.rate for run in runs]
    return Cell(
        rate=median(rates), least=min(rates), most=max(rates),
        p50=median(run.p50 for run in runs), p99=median(run.p99 for run in runs),
        cpu=median(run.cpu for run in runs), foreign=median(run.foreign for run in runs), runs=len(runs),
        void="; ".join(dict.fromkeys(run.errors for run in runs if run.errors)),
    )  # fmt: skip


def cells_of(
    runs: Iterable[Run], skipped: Mapping[tuple[str, str], str], cases: Iterable[Case]
) -> dict[str, dict[str, Cell]]:
    """Return the cells by case and server."""
    by_place: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_place.setdefault((run.case, run.server), []).append(run)
    return {
        case.id: {name: cell_of(by_place.get((case.id, name), []), skipped.get((case.id, name), ""))
                  for name in case.servers}
        for case in cases
    }  # fmt: skip


def best_peer(cells: Mapping[str, Cell]) -> str | None:
    """Return the peer with the highest rate, None if none was measured."""
    there = [name for name in PEERS if name in cells and cells[name].counts]
    return max(there, key=lambda name: cells[name].rate, default=None)


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar with what was reached."""

    text: str
    reached: str
    verdict: Verdict


def judge(case: Case, cells: Mapping[str, Cell]) -> list[Judged]:
    """Return each bar of `case` with its verdict."""
    judged = [_judge_bar(bar, cells) for bar in case.bars]
    if case.tail:
        judged.append(_judge_tail(cells))
    return judged


def _judge_bar(bar: Bar, cells: Mapping[str, Cell]) -> Judged:
    ours = cells.get(PENSTOCK, Cell())
    than = best_peer(cells) if bar.than == BEST_PEER else bar.than
    theirs = cells.get(than, Cell()) if than is not None else Cell()
    if ours.void or theirs.void:
        return Judged(bar.text, "-", "void")
    if not (ours.counts and theirs.counts and theirs.rate):
        return Judged(bar.text, "-", "not measured")
    ratio = ours.rate / theirs.rate
    who = f" ({TITLES[than]})" if bar.than == BEST_PEER and than is not None else ""
    # Compared as it is shown: nobody should have to wonder why 0.80 misses 0.8.
    return Judged(bar.text, f"{ratio:.2f} x{who}", _decide(round(ratio, 2) >= bar.least, ours, theirs))


def _decide(reached: bool, *cells: Cell) -> Verdict:
    if any(cell.foreign > NOISY for cell in cells):
        return "noisy"
    return "pass" if reached else "miss"


def _judge_tail(cells: Mapping[str, Cell]) -> Judged:
    text = "p99 <= p50 of the best peer"
    ours, peer = cells.get(PENSTOCK, Cell()), best_peer(cells)
    if ours.void:
        return Judged(text, "-", "void")
    if peer is None or not ours.counts:
        return Judged(text, "-", "not measured")
    reached = f"{ours.p99 * 1e3:.1f} ms, {cells[peer].p50 * 1e3:.1f} ms"
    return Judged(text, reached, _decide(ours.p99 <= cells[peer].p50, ours, cells[peer]))


def judge_least(text: str, value: float, least: float, shown: str, *, noisy: bool = False) -> Judged:
    """Return the verdict on a `value` that must reach `least`; `noisy`: others had too much of the core."""
    return Judged(text, shown, "noisy" if noisy else "pass" if value >= least else "miss")


def judge_most(text: str, value: float, most: float, shown: str, *, noisy: bool = False) -> Judged:
    """Return the verdict on a `value` that must not exceed `most`."""
    return Judged(text, shown, "noisy" if noisy else "pass" if value <= most else "miss")
