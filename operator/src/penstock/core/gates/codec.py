"""Evidence as a JSON-able dict of compact arrays, and back without loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from penstock.core.gates.grid import Bound
from penstock.core.gates.latency import LatencyState
from penstock.core.gates.plan import Comparison, Plan
from penstock.core.gates.record import Baseline, Cursor, Evidence, Failure, Fault, GateRecord, Lane, Tally
from penstock.core.gates.twosample import TwoSampleState

VERSION = 1
_PLAIN = (
    "bounds_settled",
    "weight",
    "weight_at",
    "exposed_at",
    "cut_at",
    "barrier",
    "blocks_at_weight",
    "newest",
    "blind_since",
    "blind_reason",
    "blocks",
    "milestones",
    "partial",
)
_PAIRS = ("error_history", "label_history", "share", "gap")
_LANES = ("traffic", "labels", "requests")


def dump(evidence: Evidence) -> dict[str, Any]:
    """JSON-able form; with 64 pods an arm and 4 latency gates at most 64 KiB as compact JSON."""
    outcomes = sorted({o for c in evidence.cursors.values() for o in c.outcomes})
    data: dict[str, Any] = {"version": VERSION, "outcomes": outcomes}
    data["pods"] = [
        [
            pod,
            int(c.arm == "canary"),
            c.at,
            [c.outcomes.get(o) for o in outcomes],
            None if c.buckets is None else list(c.buckets),
            list(c.labels),
            int(c.warm),
        ]
        for pod, c in sorted(evidence.cursors.items())
    ]
    order = {pod: i for i, pod in enumerate(sorted(evidence.cursors))}
    for name in _LANES:
        lane: Lane = getattr(evidence, name)
        members = [[order[pod], at] for pod, at in sorted(lane.members.items()) if pod in order]
        data[name] = [lane.opened, members, _dump_tally(lane.canary), _dump_tally(lane.stable), lane.armed]
    data["resumed"] = dict(evidence.resumed)
    data["gates"] = [_dump_gate(g) for g in evidence.gates]
    data["bounds"] = [[b.k, b.level, int(b.needed)] for b in evidence.bounds]
    data["watch"] = list(evidence.watch)
    data["shown"] = list(evidence.shown)
    data["faults"] = [[f.signal, f.reason, f.since, f.detail] for f in evidence.faults]
    baseline = evidence.baseline
    data["baseline"] = None if baseline is None else [baseline.pod, baseline.at, list(baseline.counts)]
    failure = evidence.failure
    data["failure"] = None if failure is None else [failure.gate, failure.at, failure.log_e]
    for name in _PAIRS:
        pair = getattr(evidence, name)
        data[name] = None if pair is None else list(pair)
    data.update({name: getattr(evidence, name) for name in _PLAIN})
    return data


def dump_plan(plan: Plan) -> dict[str, Any]:
    """JSON-able form of a plan."""
    return {"version": VERSION, **asdict(plan)}


def load_plan(data: Mapping[str, Any]) -> Plan:
    """A plan from its dumped form. ValueError where the version is unknown or the data is malformed."""
    fields = dict(data)
    version = fields.pop("version", None)
    if version != VERSION:
        raise ValueError(f"plan has version {version!r}; this operator reads version {VERSION}")
    try:
        fields["comparisons"] = tuple(Comparison(**c) for c in fields["comparisons"])
        fields["latency_bounds"] = tuple(fields["latency_bounds"])
        return Plan(**fields)
    except (KeyError, TypeError) as problem:
        raise ValueError(f"plan is malformed: {problem!r}") from problem


def load(data: Mapping[str, Any]) -> Evidence:
    """Evidence from its dumped form. ValueError where the version is unknown or the data is malformed."""
    version = data.get("version")
    if version != VERSION:
        raise ValueError(f"evidence has version {version!r}; this operator reads version {VERSION}")
    try:
        return _load(data)
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise ValueError(f"evidence is malformed: {problem!r}") from problem


def _load(data: Mapping[str, Any]) -> Evidence:
    outcomes: list[str] = data["outcomes"]
    names = [row[0] for row in data["pods"]]
    cursors = {}
    for pod, canary, at, counts, buckets, labels, warm in data["pods"]:
        right_s, wrong_s, right_c, wrong_c = labels
        cursors[pod] = Cursor(
            "canary" if canary else "stable",
            at,
            {o: n for o, n in zip(outcomes, counts, strict=True) if n is not None},
            None if buckets is None else tuple(buckets),
            (right_s, wrong_s, right_c, wrong_c),
            bool(warm),
        )
    fields: dict[str, Any] = {name: data[name] for name in _PLAIN}
    fields.update({name: None if data[name] is None else tuple(data[name]) for name in _PAIRS})
    for name in _LANES:
        opened, members, canary, stable, *armed = data[name]  # the last is absent in what an earlier operator wrote
        entered = {names[i]: at for i, at in members}
        fields[name] = Lane(opened, entered, _load_tally(canary), _load_tally(stable), *armed)
    return Evidence(
        gates=tuple(_load_gate(row) for row in data["gates"]),
        cursors=cursors,
        resumed=dict(data.get("resumed", {})),  # absent in what an operator up to 0.1 wrote
        bounds=tuple(Bound(k, level, bool(needed)) for k, level, needed in data["bounds"]),
        watch=tuple(data["watch"]),
        shown=tuple(data["shown"]),
        faults=tuple(Fault(*row) for row in data["faults"]),
        baseline=_load_baseline(data.get("baseline")),
        failure=None if data["failure"] is None else Failure(*data["failure"]),
        **fields,
    )


def _load_baseline(row: list[Any] | None) -> Baseline | None:
    return None if row is None else Baseline(row[0], row[1], tuple(row[2]))


def _dump_tally(tally: Tally) -> list[Any]:
    return [tally.n, tally.bad, list(tally.buckets), tally.until]


def _load_tally(row: list[Any]) -> Tally:
    n, bad, buckets, until = row
    return Tally(n, bad, tuple(buckets), until)


def _dump_gate(gate: GateRecord) -> list[Any]:
    counts = [gate.canary_n, gate.canary_bad, gate.stable_n, gate.stable_bad]
    slow = [list(row) for row in gate.slow]
    return [gate.name, gate.key, _dump_state(gate.state), counts, slow, gate.first_at, gate.last_at, gate.blocks]


def _dump_state(state: TwoSampleState | LatencyState | None) -> list[Any] | None:
    match state:
        case TwoSampleState():
            rate = [state.bad, state.good, state.peak_fail, state.peak_pass]
            return ["rate", list(state.fail), list(state.passing), rate]
        case LatencyState():
            fail, passing = [list(row) for row in state.fail], [list(row) for row in state.passing]
            needed = [int(n) for n in state.needed]
            return ["latency", fail, passing, needed, list(state.peaks), state.peak_fail]
        case None:
            return None


def _load_gate(row: list[Any]) -> GateRecord:
    name, key, state, counts, slow, first_at, last_at, blocks = row
    canary_n, canary_bad, stable_n, stable_bad = counts
    return GateRecord(
        name,
        key,
        _load_state(state),
        canary_n,
        canary_bad,
        stable_n,
        stable_bad,
        tuple((a, b, c) for a, b, c in slow),
        first_at,
        last_at,
        blocks,
    )


def _load_state(row: list[Any] | None) -> TwoSampleState | LatencyState | None:
    if row is None:
        return None
    if row[0] == "rate":
        return TwoSampleState(tuple(row[1]), tuple(row[2]), *row[3])
    _, fail, passing, needed, peaks, peak_fail = row
    return LatencyState(
        tuple(tuple(r) for r in fail),
        tuple(tuple(r) for r in passing),
        tuple(bool(n) for n in needed),
        tuple(peaks),
        peak_fail,
    )
