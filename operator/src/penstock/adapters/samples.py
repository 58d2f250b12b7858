"""From labelled samples to `Series`: the same ones whatever source they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from penstock.core.gates.samples import Series

KEPT_LABELS = ("cohort", "le", "outcome", "result")
"""What tells one counter of a pod from another. All else says where it was found."""

Points = tuple[tuple[float, float], ...]
_Key = tuple[str, str, str, tuple[tuple[str, str], ...]]


def bound(text: str) -> str:
    """A bucket bound in the one spelling used here: Prometheus 2 and 3 store integers differently."""
    try:
        value = float(text)
    except ValueError:
        return text
    return "+Inf" if value == float("inf") else repr(value)


def series(pod: str, name: str, labels: Mapping[str, str], points: Points) -> Series:
    """One counter of one pod; `labels` as exposed, target labels among them."""
    kept = {key: labels[key] for key in KEPT_LABELS if labels.get(key)}
    if "le" in kept:
        kept["le"] = bound(kept["le"])
    return Series(pod, labels.get("revision", ""), name, tuple(sorted(kept.items())), points)


def joined(found: Iterable[Series]) -> tuple[Series, ...]:
    """The series in a fixed order; those of one counter that follow each other in time made one.

    A pod that gets another address becomes another target, and its counters another series. Series of one counter
    that overlap stay apart: they are two sources for one number, and nobody can tell which is right.
    """
    groups: dict[_Key, list[Series]] = {}
    for item in found:
        groups.setdefault((item.pod, item.name, item.revision, item.labels), []).append(item)
    return tuple(item for key in sorted(groups) for item in _one_after_another(groups[key]))


def _one_after_another(items: Sequence[Series]) -> Sequence[Series]:
    in_order = sorted((item for item in items if item.points), key=lambda item: item.points[0][0])
    ends = [item.points[-1][0] for item in in_order]
    starts = [item.points[0][0] for item in in_order]
    if len(in_order) < 2 or any(end >= start for end, start in zip(ends, starts[1:], strict=False)):
        return in_order
    first = in_order[0]
    points = tuple(point for item in in_order for point in item.points)
    return (Series(first.pod, first.revision, first.name, first.labels, points, first.created),)
