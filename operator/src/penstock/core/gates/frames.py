"""From series to scrapes: all counters of one pod at one sample time, and what each scrape adds.

A scrape is used once every metric of the pod that the source returned has arrived for it, so that queries made
a moment apart cannot tear it. Times are compared with sample times only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from penstock.core.gates.grid import INFINITE, place
from penstock.core.gates.plan import Plan
from penstock.core.gates.record import Arm, Cursor
from penstock.core.gates.samples import FEEDBACK, LATENCY, REQUESTS, SILENT, PodFact, Series

LONGEST_GAP = 6 * 3600.0
_LABEL_SLOTS = {
    ("stable", "correct"): 0,
    ("stable", "incorrect"): 1,
    ("canary", "correct"): 2,
    ("canary", "incorrect"): 3,
}


@dataclass(slots=True)
class Frame:
    """One scrape of one pod: requests by outcome, cumulative buckets by grid index, labels by slot, earlier labels."""

    at: float
    pod: str
    arm: Arm
    outcomes: dict[str, int] = field(default_factory=dict)
    buckets: dict[int, int] = field(default_factory=dict)
    labels: dict[int, int] = field(default_factory=dict)
    earlier: list[int] = field(default_factory=lambda: [0, 0])
    created: float | None = None


@dataclass(slots=True)
class Reading:
    """Frames in order of time; by metric the pods with two series for one counter; "arm metric" of what is shown."""

    frames: list[Frame]
    doubled: dict[str, set[str]]
    shown: set[str]


@dataclass(slots=True)
class _Pod:
    arm: Arm | None = None
    series: dict[tuple[str, str | int], list[Series]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    created: float | None = None


def read(
    plan: Plan,
    series: Iterable[Series],
    cursors: Mapping[str, Cursor],
    pods: Mapping[str, PodFact],
    watch: tuple[int, ...],
) -> Reading:
    """Scrapes later than each pod's cursor. Samples that cannot be counts are passed over."""
    reading = Reading([], {}, set())
    by_pod: dict[str, _Pod] = {}
    for item in series:
        keyed = _key(plan, item, watch)
        if keyed is None or not item.points:
            continue
        family, key = keyed
        pod = by_pod.setdefault(item.pod, _Pod())
        if family != FEEDBACK:
            pod.arm = _arm(plan, item.revision)
        pod.series.setdefault((family, key), []).append(item)
        pod.last[family] = max(pod.last.get(family, 0.0), item.points[-1][0])
        if family == REQUESTS and item.created is not None:
            pod.created = item.created if pod.created is None else min(pod.created, item.created)
    newest = max((at for pod in by_pod.values() for at in pod.last.values()), default=0.0)
    for name, pod in by_pod.items():
        fact = pods.get(name)
        arm = pod.arm or (_arm(plan, fact.revision) if fact else None)
        reading.shown.update(f"{arm} {family}" for family in pod.last)
        doubled = _only_what_goes_on(pod)
        for family in doubled if newest - max(pod.last.values()) <= SILENT else ():
            reading.doubled.setdefault(family, set()).add(name)
        if doubled:
            continue
        reading.frames.extend(_frames(name, arm or "stable", pod, cursors.get(name)))
    reading.frames.sort(key=lambda f: (f.at, f.pod))
    return reading


def _only_what_goes_on(pod: _Pod) -> set[str]:
    """Leave one series to each counter, where the others ended long before it; the metrics where more go on."""
    doubled = set()
    for (family, _), found in pod.series.items():
        last = max(item.points[-1][0] for item in found)
        found[:] = [item for item in found if last - item.points[-1][0] <= SILENT]
        if len(found) > 1:
            doubled.add(family)
    return doubled


def _arm(plan: Plan, revision: str) -> Arm | None:
    if revision == plan.canary:
        return "canary"
    return "stable" if revision == plan.stable else None


def _key(plan: Plan, item: Series, watch: tuple[int, ...]) -> tuple[str, str | int] | None:
    """The counter a series is, within its pod; None = of no interest."""
    arm = _arm(plan, item.revision)
    if arm is None:
        return None
    labels = dict(item.labels)
    match item.name:
        case "penstock_requests_total":
            return REQUESTS, labels.get("outcome", "")
        case "penstock_request_duration_seconds_bucket":
            k = place(labels.get("le", ""))
            return None if k is None or (watch and k not in watch) else (LATENCY, k)
        case "penstock_feedback_total":
            slot = _LABEL_SLOTS.get((arm, labels.get("result", "")))
            if slot is None:
                return None
            cohort = labels.get("cohort", "")
            return FEEDBACK, slot if cohort == plan.cohort else f"{slot} {cohort}"
    return None


def _frames(name: str, arm: Arm, pod: _Pod, cursor: Cursor | None) -> Sequence[Frame]:
    since = cursor.at if cursor else float("-inf")
    horizon = min(pod.last.values())
    frames: dict[float, Frame] = {}
    for (family, key), (item,) in pod.series.items():
        for at, value in reversed(item.points):
            if at <= since:
                break
            if at > horizon or not isfinite(value) or value < 0:
                continue
            frame = frames.get(at)
            if frame is None:
                frame = frames[at] = Frame(at, name, arm, created=pod.created)
            count = round(value)
            if family == REQUESTS:
                frame.outcomes[str(key)] = count
            elif family == LATENCY:
                frame.buckets[int(key)] = count
            elif isinstance(key, int):
                frame.labels[key] = count
            elif int(key[0]) < 2:
                frame.earlier[int(key[0])] += count
    return tuple(frames.values())


@dataclass(frozen=True, slots=True)
class Step:
    """What one scrape adds to the one before.

    n, bad: requests and those not ok. buckets: increments at the watched bounds, None where unknown. labels: as
    Cursor.labels. joined: the pod's first scrape or the first after a gap (counts are then only those since its
    birth, or nil). restarted: its counters began anew. lost: (from, to) of a gap too long to bridge.
    """

    cursor: Cursor
    n: int = 0
    bad: int = 0
    buckets: tuple[int, ...] | None = None
    labels: tuple[int, int, int, int] = (0, 0, 0, 0)
    first: bool = False
    newborn: bool = False
    restarted: bool = False
    lost: tuple[float, float] | None = None


def advance(
    plan: Plan,
    cursor: Cursor | None,
    frame: Frame,
    fact: PodFact | None,
    watch: tuple[int, ...],
    exposed_at: float | None = None,
) -> Step:
    """Difference a scrape against the pod's previous one. exposed_at: when the canary first got weight.

    A counter that fell means that the process restarted, and with it all counters of the pod: each then adds its
    whole value. The first scrape of a pod born after the rollout's start counts from 0; any other first scrape is
    only an offset, except for labels, whose cohort began at 0 with the rollout. A counter that the previous scrape
    did not have began at 0. A gap above 6 h is not bridged.
    """
    buckets = _watched_buckets(frame, watch)
    outcomes = {**cursor.outcomes, **frame.outcomes} if cursor else frame.outcomes
    before = cursor.labels if cursor else (0, 0, 0, 0)
    labels = _slots(frame, before)
    newborn = cursor is None and _newborn(plan, frame, fact)
    restarted = cursor is not None and _restarted(cursor, frame, buckets)
    lost = (cursor.at, frame.at) if cursor and frame.at - cursor.at > LONGEST_GAP else None
    base: Mapping[str, int]
    if newborn or restarted:
        base, bucket_base, label_base = {}, (0,) * len(watch), (0, 0, 0, 0)
        outcomes = frame.outcomes
        labels = _slots(frame, (0, 0, 0, 0))
    elif cursor is None:
        base, bucket_base, label_base = outcomes, None, (0, 0, 0, 0)
    else:
        base, bucket_base, label_base = cursor.outcomes, cursor.buckets, cursor.labels
    if lost:
        base, bucket_base, label_base = outcomes, None, labels
    rise = {o: v - base.get(o, 0) for o, v in outcomes.items()}
    n = sum(rise.values())
    warm = bool(cursor and cursor.warm and not restarted)
    warm = warm or _warm(plan, sum(outcomes.values()), _in_use_since(frame.arm, fact, exposed_at), frame.at)
    return Step(
        Cursor(frame.arm, frame.at, outcomes, buckets, labels, warm),
        n,
        n - rise.get("ok", 0),
        None
        if buckets is None or bucket_base is None
        else tuple(v - b for v, b in zip(buckets, bucket_base, strict=True)),
        (
            labels[0] - label_base[0],
            labels[1] - label_base[1],
            labels[2] - label_base[2],
            labels[3] - label_base[3],
        ),
        first=cursor is None,
        newborn=newborn,
        restarted=restarted,
        lost=lost,
    )


def _slots(frame: Frame, absent: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    a, b, c, d = absent
    get = frame.labels.get
    return get(0, a), get(1, b), get(2, c), get(3, d)


def _watched_buckets(frame: Frame, watch: tuple[int, ...]) -> tuple[int, ...] | None:
    if not watch or any(k not in frame.buckets for k in watch):
        return None
    return tuple(frame.buckets[k] for k in watch)


def _newborn(plan: Plan, frame: Frame, fact: PodFact | None) -> bool:
    if frame.created is not None and frame.created <= frame.at:
        return frame.created > plan.started_at
    return fact is not None and fact.created_at > plan.started_at


def _restarted(cursor: Cursor, frame: Frame, buckets: tuple[int, ...] | None) -> bool:
    if any(v < cursor.outcomes.get(o, 0) for o, v in frame.outcomes.items()):
        return True
    if any(v < cursor.labels[i] for i, v in frame.labels.items()):
        return True
    if buckets is None or cursor.buckets is None:
        return False
    return any(v < b for v, b in zip(buckets, cursor.buckets, strict=True))


def _in_use_since(arm: Arm, fact: PodFact | None, exposed_at: float | None) -> float | None:
    """When requests could first reach the pod: a canary that waits at weight 0, however long, stays cold."""
    if fact is None or fact.ready_since is None:
        return None
    if arm == "stable":
        return fact.ready_since
    return None if exposed_at is None else max(fact.ready_since, exposed_at)


def _warm(plan: Plan, served: int, since: float | None, at: float) -> bool:
    if plan.born_warm:
        return True
    if since is None or at - since < plan.cold_start_seconds:
        return False
    return served >= plan.cold_start_requests or at - since >= plan.cold_start_max_seconds


def histogram(frame: Frame) -> Mapping[int, int]:
    """The frame's whole cumulative histogram; empty where +Inf is missing."""
    return frame.buckets if INFINITE in frame.buckets else {}
