"""Three times as many requests as a server can answer: what it answers, what it refuses and how quickly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from bench.server.cases import (
    DEADLINE_SECONDS,
    KSERVE,
    LEAST_GOODPUT,
    MLSERVER,
    MOST_REFUSAL_SECONDS,
    OVERLOAD_FACTOR,
    PENSTOCK,
    Case,
)
from bench.server.measure import Load, Pace, Tell, drive, prepare
from bench.server.models import ModelFile
from bench.server.payloads import INFER_PATH
from bench.server.processes import CLIENT_CORE, Meter, foreign_share, pinned
from bench.server.servers import Servers
from bench.server.stats import NOISY, Judged, judge_least, judge_most
from e2e.cluster.console import Problem, telling_line

# The convnet, since only where the model is dearer than HTTP does refusing leave time to answer. As many connections
# as keep it busy, and no more.
CASES = (
    (PENSTOCK, Case("overload-binary", "convnet, binary", "conv", "binary", 16, ())),
    (PENSTOCK, Case("overload-json", "convnet, JSON", "conv", "json", 16, ())),
    (MLSERVER, Case("overload-json", "convnet, JSON", "conv", "json", 16, ())),
    (KSERVE, Case("overload-json", "convnet, JSON", "conv", "json", 16, ())),
)
# The p99 of the client's lateness beyond which a run says nothing about the server.
MOST_LAG_SECONDS = 0.02
_ENV = {"PENSTOCK_SERVING": json.dumps({"timeout": f"{DEADLINE_SECONDS:g}s"})}


@dataclass(frozen=True, slots=True)
class Flood:
    """One server under three times its load. Rates a second, times in seconds.

    `goodput` counts the 200s that came while the flood lasted; `late` the requests answered with 504, `lost` those
    with no answer or another one; `lag` is the p99 of the client's own lateness, `foreign` the share of the core
    that others took. `void` says why there is nothing but that.
    """

    server: str
    title: str
    capacity: float
    offered: float
    goodput: float
    accepted_p50: float
    accepted_p99: float
    refused: int
    refusal_p50: float
    refusal_p99: float
    without_retry_after: int
    late: int
    lost: int
    lag: float
    foreign: float
    void: str = ""


def measure_overload(model: ModelFile, pace: Pace, folder: Path, tell: Tell) -> list[Flood]:
    """Flood each server in turn, a new process each time; the median of the rounds by goodput is returned."""
    floods = []
    for name, case in CASES:
        rounds = []
        for number in range(pace.rounds):
            tell(f"overload, round {number + 1} of {pace.rounds}: {name}, {case.title}")
            rounds.append(_flood(name, case, model, pace, folder))
        floods.append(next((flood for flood in rounds if flood.void), None) or _middle(rounds))
    return floods


def _middle(rounds: Sequence[Flood]) -> Flood:
    middle = median_low([flood.goodput / flood.capacity for flood in rounds])
    return next(flood for flood in rounds if flood.goodput / flood.capacity == middle)


def _flood(name: str, case: Case, model: ModelFile, pace: Pace, folder: Path) -> Flood:
    with Servers(model, folder) as servers:
        server = servers.start(name, env=_ENV)
        load = prepare(case, model, folder)
        drive(case, server, load, pace.warm)
        capacity = drive(case, server, load, pace.seconds)
        if capacity.errors:
            return Flood(name, case.title, capacity.rate, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, 0, 0, 0, 0.0, 0.0,
                         f"it fails before it is overloaded: {capacity.errors}")  # fmt: skip
        request = folder / f"{case.id}.request"
        request.write_bytes(whole_request(load))
        offered = OVERLOAD_FACTOR * capacity.rate
        before = Meter.read(server.processes)
        told = send_at_rate(server.http_port, offered, 2 * pace.seconds, request)
        foreign = foreign_share(before, Meter.read(server.processes))
    return flood_of(name, case.title, (capacity.rate, offered), told, foreign)


def whole_request(load: Load) -> bytes:
    """Return the load's request as HTTP/1.1 has it."""
    body = load.body.read_bytes()
    lines = [f"POST {INFER_PATH} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in load.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def flood_of(
    name: str, title: str, rates: tuple[float, float], told: Mapping[str, Any], foreign: float
) -> Flood:  # fmt: skip
    """Return what the open-loop client told of `name`; `rates`: its capacity, and what was offered."""
    capacity, offered = rates
    ok, refused = told["ok"], told["refused"]
    statuses = told["statuses"]
    late = statuses.get("504", 0)
    answered = ok["count"] + refused["count"] + late
    return Flood(
        server=name, title=title, capacity=capacity, offered=offered, goodput=told["ok_in_time"] / told["seconds"],
        accepted_p50=ok["p50"], accepted_p99=ok["p99"], refused=refused["count"],
        refusal_p50=refused["p50"], refusal_p99=refused["p99"], without_retry_after=told["without_retry_after"],
        late=late, lost=told["due"] - answered, lag=told["lag_p99"], foreign=foreign,
    )  # fmt: skip


def judge_flood(flood: Flood) -> list[Judged]:
    """Return the bars of overload with their verdicts: all void if the client itself was late."""
    judged = _judge(flood)
    if flood.void:
        return [Judged(each.text, flood.void, "void") for each in judged]
    if flood.lag <= MOST_LAG_SECONDS:
        return judged
    return [Judged(each.text, f"the client was {flood.lag * 1e3:.0f} ms late", "void") for each in judged]


def _judge(flood: Flood) -> list[Judged]:
    kept = flood.goodput / flood.capacity if flood.capacity else 0.0
    noisy = flood.foreign > NOISY
    lost = f"{flood.without_retry_after} without, {flood.lost} lost"
    return [
        judge_least(f"goodput >= {LEAST_GOODPUT:.0%} of capacity", round(kept, 3), LEAST_GOODPUT, f"{kept:.1%}",
                    noisy=noisy),
        judge_most(f"refused in < {MOST_REFUSAL_SECONDS * 1e3:g} ms (p99)", flood.refusal_p99, MOST_REFUSAL_SECONDS,
                   f"{flood.refusal_p99 * 1e3:.1f} ms (p50 {flood.refusal_p50 * 1e3:.1f})", noisy=noisy),
        judge_most("every refusal is 429 or 503 with Retry-After, nothing lost",
                   flood.without_retry_after + flood.lost, 0, lost),
        judge_most(f"accepted p99 <= {DEADLINE_SECONDS:g} s, the deadline", flood.accepted_p99, DEADLINE_SECONDS,
                   f"{flood.accepted_p99:.2f} s", noisy=noisy),
    ]  # fmt: skip


def send_at_rate(port: int, rate: float, seconds: float, request: Path, *more: str) -> dict[str, Any]:
    """Return what the open-loop client told, to which `more` options were given; Problem if it failed."""
    words = [sys.executable, "-m", "bench.server.open_loop", "--port", str(port), "--rate", str(rate),
             "--seconds", str(seconds), "--request", str(request), *more]  # fmt: skip
    try:
        done = subprocess.run(
            pinned(CLIENT_CORE, words), capture_output=True, text=True, check=False, timeout=4 * seconds + 60
        )
    except subprocess.TimeoutExpired:
        raise Problem("the open-loop client did not end", f"by hand: {' '.join(words)}") from None
    if done.returncode:
        raise Problem(f"the open-loop client failed: {telling_line(done.stderr)}", f"by hand: {' '.join(words)}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told
