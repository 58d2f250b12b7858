"""What came back: counts by revision, latency, and a timeline with one entry a second."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, TypedDict

_FACTOR = 1.05
_LEAST_SECONDS = 0.0001
_LOG_FACTOR = math.log(_FACTOR)
_BUCKETS = 260
TIMELINE_LIMIT = 7200
FAILURES_KEPT = 20


class RevisionCounts(TypedDict):
    """The counts of one revision; latencies in milliseconds, None where nothing was answered."""

    ok: int
    wrong: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


class Latency:
    """A histogram with bounds 5 % apart: quantiles within 2.5 %, in 260 numbers."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self._counts = [0] * _BUCKETS
        self._total = 0

    def add(self, seconds: float) -> None:
        """Count one request."""
        bucket = int(math.log(max(seconds, _LEAST_SECONDS) / _LEAST_SECONDS) / _LOG_FACTOR)
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self._total += 1

    def quantile_ms(self, share: float) -> float | None:
        """The latency in milliseconds that `share` of the requests stayed under; None without any."""
        if not self._total:
            return None
        left = share * self._total
        for bucket, count in enumerate(self._counts):
            left -= count
            if left <= 0 and count:
                return round(1000 * _LEAST_SECONDS * math.pow(_FACTOR, bucket + 0.5), 3)
        return None


@dataclass(slots=True)
class _Revision:
    ok: int = 0
    wrong: int = 0
    failed: int = 0
    latency: Latency = field(default_factory=Latency)

    def counts(self) -> RevisionCounts:
        return {
            "ok": self.ok,
            "wrong": self.wrong,
            "failed": self.failed,
            "p50_ms": self.latency.quantile_ms(0.5),
            "p99_ms": self.latency.quantile_ms(0.99),
        }


@dataclass(slots=True)
class Tally:
    """All counts since the start.

    A failure is an answer other than 2xx, a reset, a timeout, or a request that could not be sent for want of
    connections; failures without a penstock-revision header are counted under the revision "".
    """

    sent: int = 0
    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    feedback: Counter[str] = field(default_factory=Counter)
    revisions: dict[str, _Revision] = field(default_factory=dict)
    last_failures: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=FAILURES_KEPT))
    timeline: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=TIMELINE_LIMIT))
    _second: dict[str, _Revision] = field(default_factory=dict)
    _sent_before: int = 0

    def answered(self, revision: str, seconds: float, *, right: bool) -> None:
        """Count a 2xx answer."""
        self.ok += 1
        for table in (self.revisions, self._second):
            entry = table.get(revision) or table.setdefault(revision, _Revision())
            entry.ok += 1
            entry.wrong += not right
            entry.latency.add(seconds)

    def failed(self, kind: str, revision: str, at: float, detail: str) -> None:
        """Count a failure: `kind` is a status code, or reset, timeout, unsent; `at` is Unix time."""
        self.failures[kind] += 1
        for table in (self.revisions, self._second):
            table.setdefault(revision, _Revision()).failed += 1
        self.last_failures.append({"at": at, "kind": kind, "revision": revision, "detail": detail[:300]})

    def close_second(self, at: float) -> dict[str, Any]:
        """End the current second of the timeline, at Unix time `at`; returns its entry."""
        entry = {
            "at": round(at, 3),
            "sent": self.sent - self._sent_before,
            "revisions": {name: counts.counts() for name, counts in self._second.items()},
        }
        self._second = {}
        self._sent_before = self.sent
        self.timeline.append(entry)
        return entry

    def totals(self) -> dict[str, Any]:
        """Everything but the timeline, as plain data."""
        return {
            "sent": self.sent,
            "ok": self.ok,
            "failed": self.failures.total(),
            "failures": dict(self.failures),
            "feedback": dict(self.feedback),
            "revisions": {name: counts.counts() for name, counts in self.revisions.items()},
            "last_failures": list(self.last_failures),
        }
