"""Counters of feedback: by the revision that predicted, and by rollout cohort."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock_runtime.server.feedback.judge import Verdict
from penstock_runtime.server.metrics import count_class, escape, family

NO_COHORT = "none"
MAX_COHORTS = 3
MAX_FOREIGN_REVISIONS = 8
REASONS = ("unmatched", "duplicate", "expired")


@dataclass(slots=True)
class _Cohort:
    newest: int
    correct: int = 0
    incorrect: int = 0


@dataclass(slots=True)
class _Revision:
    cohorts: dict[str, _Cohort] = field(default_factory=lambda: {NO_COHORT: _Cohort(0)})
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    error_sum: float = 0.0
    squared_sum: float = 0.0
    error_count: int = 0


class Tally:
    """Feedback counted on this pod.

    Series carry the revision that predicted, which may not be this pod's; at most 8 foreign ones are kept,
    the least recently counted goes first. Per revision the 3 newest cohorts (by the predictions' time) are
    kept, and "none"; a label for an older one counts under "none".
    """

    def __init__(self, model: str, revision: str, cohort: str) -> None:
        """Start this pod's series at 0 for `cohort`."""
        self._model = escape(model)
        self._own = revision
        self._revisions: OrderedDict[str, _Revision] = OrderedDict({revision: _Revision()})
        self.rejected = dict.fromkeys(REASONS, 0)
        self.start_cohort(cohort, 0)

    def start_cohort(self, cohort: str, now: int) -> None:
        """Start the series of `cohort` at 0, for this pod's revision and for the one being rolled out.

        A cohort is the rollout's id, `<revision>-<letters>`: so a stable pod knows whose labels will come
        and shows 0 before the first, which a reader of counters needs in order to count it.
        """
        if cohort == NO_COHORT:
            return
        _cohort(self._revisions[self._own], cohort, now)
        canary = cohort.rpartition("-")[0]
        if canary and canary != self._own:
            _cohort(self._revision(canary), cohort, now)

    def count(self, revision: str, cohort: str, issued: int, predicted: str | None, verdict: Verdict) -> None:
        """Count one row's `verdict` for the `revision` that predicted at `issued` in `cohort`."""
        entry = self._revision(revision)
        if verdict.correct is not None:
            bucket = _cohort(entry, cohort, issued)
            if verdict.correct:
                bucket.correct += 1
            else:
                bucket.incorrect += 1
        if verdict.error is not None:
            entry.error_sum += verdict.error
            entry.squared_sum += verdict.error * verdict.error
            entry.error_count += 1
        if verdict.label is not None and predicted is not None:
            _count_pair(entry, verdict.label, predicted)

    def _revision(self, name: str) -> _Revision:
        entry = self._revisions.get(name)
        if entry is None:
            entry = self._revisions[name] = _Revision()
            if len(self._revisions) > MAX_FOREIGN_REVISIONS + 1:
                oldest = next(key for key in self._revisions if key != self._own)
                del self._revisions[oldest]
        elif name != self._own:
            self._revisions.move_to_end(name)
        return entry

    def lines(self) -> Iterator[str]:
        """Yield the exposition lines."""
        named = [(f'model="{self._model}",revision="{escape(name)}"', entry) for name, entry in self._revisions.items()]
        yield from family("penstock_feedback_total", "counter", "Labelled predictions by result and cohort")
        for labels, entry in named:
            for cohort, counts in entry.cohorts.items():
                tail = f'cohort="{escape(cohort)}"'
                yield f'penstock_feedback_total{{{labels},result="correct",{tail}}} {counts.correct}'
                yield f'penstock_feedback_total{{{labels},result="incorrect",{tail}}} {counts.incorrect}'
        yield from family("penstock_feedback_class_total", "counter", "Labelled predictions by class")
        for labels, entry in named:
            for (label, predicted), count in entry.pairs.items():
                pair = f'label="{escape(label)}",predicted="{escape(predicted)}"'
                yield f"penstock_feedback_class_total{{{labels},{pair}}} {count}"
        yield from family("penstock_feedback_error_sum", "counter", "Sum of absolute errors")
        for labels, entry in named:
            yield f"penstock_feedback_error_sum{{{labels}}} {entry.error_sum!r}"
        yield from family("penstock_feedback_error_squared_sum", "counter", "Sum of squared errors")
        for labels, entry in named:
            yield f"penstock_feedback_error_squared_sum{{{labels}}} {entry.squared_sum!r}"
        yield from family("penstock_feedback_error_count", "counter", "Errors summed")
        for labels, entry in named:
            yield f"penstock_feedback_error_count{{{labels}}} {entry.error_count}"
        yield from family("penstock_feedback_rejected_total", "counter", "Feedback not counted, by reason")
        own = f'model="{self._model}",revision="{escape(self._own)}"'
        for reason, count in self.rejected.items():
            yield f'penstock_feedback_rejected_total{{{own},reason="{reason}"}} {count}'


def _cohort(entry: _Revision, name: str, newest: int) -> _Cohort:
    known = entry.cohorts.get(name)
    if known is not None:
        known.newest = max(known.newest, newest)
        return known
    named = {key: item for key, item in entry.cohorts.items() if key != NO_COHORT}
    if len(named) >= MAX_COHORTS:
        oldest = min(named, key=lambda key: named[key].newest)
        if newest <= named[oldest].newest:
            return entry.cohorts[NO_COHORT]
        del entry.cohorts[oldest]
    added = entry.cohorts[name] = _Cohort(newest)
    return added


def _count_pair(entry: _Revision, label: str, predicted: str) -> None:
    # One table of names for both sides, so that the pairs are at most 21 x 21.
    for item in (label, predicted):
        count_class(entry.labels, item, 1)
    names = [item[:64] if item[:64] in entry.labels else "other" for item in (label, predicted)]
    entry.pairs[names[0], names[1]] += 1
