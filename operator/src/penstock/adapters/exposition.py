"""Reads Prometheus' text format 0.0.4, only the metrics asked for.

A scrape of 64 pods every few seconds has 15,000 lines of which a few hundred matter: the names are looked at
before anything is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,|(?=\}))')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


@dataclass(frozen=True, slots=True)
class Sample:
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


def parse(text: str, names: Collection[str]) -> Iterator[Sample]:
    """The samples of these metrics. ValueError with the line's number for a line that is none."""
    wanted = frozenset(names)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line[0] == "#":
            continue
        name = _NAME.match(line)
        if name is None:
            if not line.strip():
                continue
            raise ValueError(f"line {number} starts with no metric name")
        if name.group() not in wanted:
            continue
        try:
            labels, rest = _labels(line, name.end())
            fields = rest.split()
            # A second field is a time stamp of the exporter's own, which ours never has.
            value = float(fields[0])
        except (ValueError, IndexError):
            raise ValueError(f"line {number} is not a sample: {line[:80]!r}") from None
        yield Sample(name.group(), labels, value)


def _labels(line: str, at: int) -> tuple[dict[str, str], str]:
    while line[at : at + 1] in (" ", "\t"):
        at += 1
    if line[at : at + 1] != "{":
        return {}, line[at:]
    at += 1
    labels: dict[str, str] = {}
    while (match := _LABEL.match(line, at)) is not None:
        value = match.group(2)
        if "\\" in value:
            value = _ESCAPE.sub(lambda m: _ESCAPED.get(m.group(1), m.group()), value)
        labels[match.group(1)] = value
        at = match.end()
    while line[at : at + 1] in (" ", "\t"):
        at += 1
    if line[at : at + 1] != "}":
        raise ValueError("unbalanced braces")
    return labels, line[at + 1 :]
