"""What a metrics source hands over: raw samples of counters, pod by pod. Never a rate, never a sum."""

from __future__ import annotations

from dataclasses import dataclass

REQUESTS = "penstock_requests_total"
LATENCY = "penstock_request_duration_seconds_bucket"
FEEDBACK = "penstock_feedback_total"
SILENT = 150.0
"""Seconds of sample time without a sample, while others go on, after which a pod is no longer waited for."""
LULL = 90.0
"""Seconds of sample time without a sample of any pod of an arm that are a gap of the source, not of a pod. Above the
longest scrape interval in use (60 s), so that scrapes in step are no gap; with one interval more, at most SILENT."""


@dataclass(frozen=True, slots=True)
class Series:
    """One counter of one pod.

    pod: pod name. revision: the label `revision` (for feedback the revision that *predicted*, which may differ
    from the pod's own). name: metric name. labels: the remaining labels, sorted, such as (("outcome", "ok"),).
    points: (sample time in unix seconds, value), ascending in time; samples already seen are skipped, so
    overlapping windows do no harm. created: unix seconds at which the counter began, where exposed.
    """

    pod: str
    revision: str
    name: str
    labels: tuple[tuple[str, str], ...]
    points: tuple[tuple[float, float], ...]
    created: float | None = None


@dataclass(frozen=True, slots=True)
class PodFact:
    """What the cluster says of a living pod: its revision, creation, and since when it has been Ready.

    Times in unix seconds; ready_since None = not Ready now. A pod missing from the mapping given to `update` is
    taken for deleted: it is not waited for.
    """

    revision: str
    created_at: float
    ready_since: float | None = None
