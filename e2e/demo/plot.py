"""The picture that stays: weight, accuracy and latency over the time of the story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from e2e.demo.journal import Journal, Mark, Sighting

BIN_SECONDS = 3.0
COLORS = {"v1": "#1f77b4", "v2": "#2ca02c", "v3": "#d62728", "v4": "#ff7f0e", "v5": "#7f7f7f", "v6": "#8c564b"}


class Line(NamedTuple):
    """Points of one version: seconds since the story began, and values; NaN where there is a gap."""

    x: list[float]
    y: list[float]


def weight_line(sightings: Sequence[Sighting], begin: float, end: float) -> Line:
    """The canary's weight in percent, as steps."""
    points = [(s.at - begin, float(s.weight)) for s in sightings if s.at >= begin]
    if not points:
        return Line([], [])
    points.append((max(end - begin, points[-1][0]), points[-1][1]))
    return Line([x for x, _ in points], [y for _, y in points])


def version_lines(
    seconds: Sequence[Mapping[str, Any]], names: Mapping[str, str], begin: float, what: str
) -> dict[str, Line]:
    """`accuracy` (percent right) or `p50_ms` by version, in bins of three seconds; no point without an answer."""
    bins: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for second in seconds:
        for revision, counts in second["revisions"].items():
            version = names.get(revision)
            if version and counts["ok"]:
                index = int((second["at"] - begin) // BIN_SECONDS)
                bins.setdefault(version, {}).setdefault(index, []).append(counts)
    return {version: _line(by_index, what) for version, by_index in sorted(bins.items())}


def _line(by_index: Mapping[int, Sequence[Mapping[str, Any]]], what: str) -> Line:
    x: list[float] = []
    y: list[float] = []
    for index in sorted(by_index):
        if x and index * BIN_SECONDS > x[-1] + 2 * BIN_SECONDS:
            x.append(x[-1] + BIN_SECONDS)
            y.append(float("nan"))
        counts = by_index[index]
        answered = sum(c["ok"] for c in counts)
        x.append((index + 0.5) * BIN_SECONDS)
        if what == "accuracy":
            y.append(100 * (1 - sum(c["wrong"] for c in counts) / answered))
        else:
            y.append(sum(c["p50_ms"] * c["ok"] for c in counts) / answered)
    return Line(x, y)


def try_to_draw(journal: Journal, path: Path) -> str:
    """`draw`; why there is no picture, or nothing: a folder that cannot be written to must not hide what was seen."""
    try:
        draw(journal, path)
    except OSError as error:
        return f"{path} could not be written ({error.strerror}); another place: e2e/demo/run --plot FILE"
    return ""


def draw(journal: Journal, path: Path) -> None:
    """Write the PNG. Needs matplotlib, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not journal.marks:
        return
    begin = journal.marks[0].at
    end = max([s["at"] for s in journal.seconds] + [s.at for s in journal.sightings] + [begin + 1])
    names = journal.version_names()
    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    weight, accuracy, latency = figure.subplots(3, 1, sharex=True)
    line = weight_line(journal.sightings, begin, end)
    weight.step(line.x, line.y, where="post", color="black")
    weight.fill_between(line.x, line.y, step="post", alpha=0.15, color="black")
    weight.set(ylabel="canary's weight, %", ylim=(0, 105), title="Penstock: the story of six versions of one model")
    for axis, what in ((accuracy, "accuracy"), (latency, "p50_ms")):
        for version, points in version_lines(journal.seconds, names, begin, what).items():
            axis.plot(points.x, points.y, label=version, color=COLORS.get(version), marker=".", markersize=4)
    accuracy.set(ylabel="right answers, %", ylim=(-3, 104))
    latency.set(ylabel="median latency, ms", xlabel="seconds", yscale="log", xlim=(0, end - begin))
    for axis in (weight, accuracy, latency):
        axis.grid(alpha=0.25)
        for mark in journal.marks:
            axis.axvline(mark.at - begin, color="gray", linestyle=":", linewidth=1)
    for mark in journal.marks:
        weight.text(mark.at - begin + 1, 103, short(mark), rotation=90, va="top", ha="left", fontsize=8)
    if accuracy.lines:
        accuracy.legend(loc="center left", ncols=6)
    figure.savefig(path, dpi=110)


def short(mark: Mark) -> str:
    """A chapter's title up to its first comma or colon."""
    return mark.title.split(",")[0].split(":")[0]
