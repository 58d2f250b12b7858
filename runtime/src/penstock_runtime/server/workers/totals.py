"""The metrics of several workers as those of one server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

# A server is loaded once all its workers are; what else is no counter is shown at its worst.
_GAUGES: dict[str, Callable[[float, float], float]] = {"penstock_model_loaded": min}


@dataclass(slots=True)
class _Family:
    head: list[str] = field(default_factory=list)
    combine: Callable[[float, float], float] = max
    values: dict[str, float] = field(default_factory=dict)


def add_up(texts: Iterable[str]) -> bytes:
    """Return the sum of expositions in Prometheus' text format 0.0.4, each of one worker.

    Counters and histograms are added series by series. A series that only some workers have counts as 0 in the
    others, so that it begins when the first of them has it.
    """
    families: dict[str, _Family] = {}
    for text in texts:
        family = _Family()
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = families.setdefault(line.split(" ", 3)[2], _Family())
                if not family.head:
                    family.head.append(line)
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ", 3)
                if len(family.head) < 2:
                    family.head.append(line)
                    family.combine = _GAUGES.get(name, max) if kind == "gauge" else float.__add__
            elif line:
                _add(family, line)
    lines = [line for family in families.values() for line in (*family.head, *_lines(family))]
    return ("\n".join(lines) + "\n").encode()


def _add(family: _Family, line: str) -> None:
    series, _, text = line.rpartition(" ")
    value = float(text)
    known = family.values.get(series)
    family.values[series] = value if known is None else family.combine(known, value)


def _lines(family: _Family) -> Iterable[str]:
    return (f"{series} {_write(value)}" for series, value in family.values.items())


def _write(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
