"""Whether a shadow slows users down: their answers' times at a fixed rate, with and without copies of all requests."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.server.cases import PENSTOCK, Case
from bench.server.measure import Pace, Tell, check, drive, prepare
from bench.server.models import ModelFile
from bench.server.overload import MOST_LAG_SECONDS, send_at_rate, whole_request
from bench.server.processes import CLIENT_CORE, Meter, foreign_share, free_ports
from bench.server.servers import Server, Servers
from e2e.cluster.console import Problem

# Models so cheap that what a copy costs the server is not hidden behind them.
CASES = (
    Case("shadow-iris", "iris, JSON", "iris", "json", 1, ()),
    Case("shadow-mlp", "MLP, binary", "mlp", "binary", 1, ()),
)
# Of what one connection gets: then the answers, their copies and the target leave both cores idle most of the time.
# By many connections requests come in company, where they cost a fraction of what one alone does.
RATE_SHARE = 0.25
SETTLE_SECONDS, SETTLE_POLL_SECONDS = 10.0, 0.05
# The target has the client's core, and must not be what the client waits for.
YIELDING = ("nice", "-n", "19")


@dataclass(frozen=True, slots=True)
class Shadowed:
    """One run at a fixed rate, with or without a shadow. Rates a second, times in seconds.

    `cpu` is the server's CPU time an answer, of copies and their comparison too; `lag` the p99 of the client's own
    lateness; `foreign` the share of the server's core that others took. Of the copies: `seen` could have been sent,
    the others say what became of them. `void` says what makes the run worthless.
    """

    title: str
    shadowed: bool
    offered: float
    p50: float
    p99: float
    cpu: float
    lag: float
    foreign: float
    seen: int = 0
    agreed: int = 0
    disagreed: int = 0
    failed: int = 0
    dropped: int = 0
    void: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A server, its admin port, and what it may be told to copy to; `request` is on disk."""

    server: Server
    admin_port: int
    target: Server
    request: Path

    def shadow(self) -> None:
        """Begin to copy every request, with counts from 0."""
        self.stop()
        self.call("PUT", {"to": f"http://127.0.0.1:{self.target.http_port}", "fraction": 1.0})

    def stop(self) -> None:
        """Copy none."""
        self.call("DELETE")

    def call(self, method: str, setting: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what `/v2/shadow` answers; Problem where it is no 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        try:
            connection.request(method, "/v2/shadow", None if setting is None else json.dumps(setting))
            reply = connection.getresponse()
            text = reply.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Problem(f"{method} /v2/shadow had no answer: {error!r}") from None
        finally:
            connection.close()
        if reply.status != 200:
            raise Problem(f"{method} /v2/shadow was answered with {reply.status}: {text[:200]}")
        told: dict[str, Any] = json.loads(text)
        return told

    def settle(self) -> dict[str, int]:
        """Return the counts once every copy has its result, or as they are after a while."""
        end = time.monotonic() + SETTLE_SECONDS
        while under_way(counts := self.call("GET")["counts"]) and time.monotonic() < end:
            time.sleep(SETTLE_POLL_SECONDS)
        return {name: int(count) for name, count in counts.items()}


def under_way(counts: Mapping[str, int]) -> int:
    """Return how many copies have no result yet, where every request is copied."""
    return counts["seen"] - sum(counts[name] for name in ("agree", "disagree", "error", "dropped"))


def measure_shadow(models: Mapping[str, ModelFile], pace: Pace, folder: Path, tell: Tell) -> list[Shadowed]:
    """Measure each case without, with, without, with a shadow and so on, at the same rate; Problem if it fails."""
    runs: list[Shadowed] = []
    for case in CASES:
        with Servers(models[case.model], folder) as servers:
            pair, capacity = _start(case, servers, models[case.model], pace, folder)
            for number in range(pace.rounds):
                for shadowed in (False, True):
                    tell(
                        f"{case.id}: round {number + 1} of {pace.rounds}, {'with' if shadowed else 'without'} a shadow"
                    )
                    runs.append(_run(case.title, pair, capacity * RATE_SHARE, pace, shadowed=shadowed))
    return runs


def _start(case: Case, servers: Servers, model: ModelFile, pace: Pace, folder: Path) -> tuple[Pair, float]:
    (admin_port,) = free_ports(1)
    server = servers.start(PENSTOCK, more=("--admin-port", str(admin_port)))
    target = servers.start(PENSTOCK, cores=(CLIENT_CORE,), before=YIELDING)
    load = prepare(case, model, folder)
    for each in (server, target):
        wrong = check(case, each, load, model)
        if wrong:
            raise Problem(f"{PENSTOCK} cannot be asked {case.title}: {wrong}")
    request = folder / f"{case.id}.request"
    request.write_bytes(whole_request(load))
    drive(case, server, load, pace.warm)
    capacity = drive(case, server, load, pace.seconds)
    if capacity.errors:
        raise Problem(f"{case.title} fails without any shadow: {capacity.errors}")
    return Pair(server, admin_port, target, request), capacity.rate


def _run(title: str, pair: Pair, rate: float, pace: Pace, *, shadowed: bool) -> Shadowed:
    counts: dict[str, int] = {}
    for seconds in (pace.warm, pace.seconds):
        if shadowed:
            pair.shadow()
        else:
            pair.stop()
        before = Meter.read(pair.server.processes)
        told = send_at_rate(pair.server.http_port, rate, seconds, pair.request, "--random")
        if shadowed:
            counts = pair.settle()
        after = Meter.read(pair.server.processes)
    pair.stop()
    return shadowed_of(title, rate, told, counts, (before, after))


def shadowed_of(
    title: str, rate: float, told: Mapping[str, Any], counts: Mapping[str, int], meters: tuple[Meter, Meter]
) -> Shadowed:
    """Return the run of which the open-loop client `told`; `counts` are of the copies, empty without a shadow."""
    before, after = meters
    ok = told["ok"]
    return Shadowed(
        title=title, shadowed=bool(counts), offered=rate, p50=ok["p50"], p99=ok["p99"],
        cpu=(after.server - before.server) / ok["count"] if ok["count"] else 0.0,
        lag=told["lag_p99"], foreign=foreign_share(before, after),
        seen=counts.get("seen", 0), agreed=counts.get("agree", 0), disagreed=counts.get("disagree", 0),
        failed=counts.get("error", 0), dropped=counts.get("dropped", 0), void=_what_is_wrong(told, counts),
    )  # fmt: skip


def _what_is_wrong(told: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    answered, due = told["ok"]["count"], told["due"]
    if answered < due:
        return f"{due - answered:,} of {due:,} requests were not answered with 200"
    if told["lag_p99"] > MOST_LAG_SECONDS:
        return f"the client was {told['lag_p99'] * 1e3:.0f} ms late"
    if counts and counts["seen"] < answered:
        return f"the shadow saw {counts['seen']:,} of {answered:,} requests"
    if counts and under_way(counts):
        return f"{under_way(counts):,} copies had no result after {SETTLE_SECONDS:g} s"
    return ""
