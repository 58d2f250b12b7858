"""What a metrics source hands over: raw samples of counters, pod by pod. Never a rate, never a sum."""

from __future__ import annotations

from dataclasses import dataclass

REQUESTS = "penstock_requests_total"
LATENCY = "penstock_request_duration_seconds_bucket"
FEEDBACK = "penstock_feedback_total"


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
