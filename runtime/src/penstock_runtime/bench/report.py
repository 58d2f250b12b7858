"""What a measurement found: as JSON and as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from penstock_runtime.bench.latencies import Latencies
from penstock_runtime.bench.load import Plan, Results
from penstock_runtime.bench.rows import Payload
from penstock_runtime.bench.target import Target
from penstock_runtime.terminal import printable

Report = dict[str, Any]
Stages = dict[str, tuple[int, int]]

_SHARES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


def make_report(
    target: Target, plan: Plan, payloads: list[Payload], results: Results, stages: tuple[Stages | None, Stages | None]
) -> Report:
    """Return everything as JSON has it. `stages` are the server's own statistics before and after."""
    ok = results.latencies.count
    return {
        "url": target.url,
        "model": target.model,
        "connections": plan.connections,
        "seconds": round(results.seconds, 3),
        "rate": plan.rate,
        "binary": any(header is not None for _, header in payloads),
        "request_bytes": max(len(body) for body, _ in payloads),
        "requests": {
            "ok": ok,
            "failed": results.failed.total(),
            "unsent": results.unsent,
            "per_second": round(ok / results.seconds, 1) if results.seconds else 0.0,
        },
        "latency_ms": _latencies(results.latencies),
        "errors": dict(results.failed.most_common()),
        "first_error": _error_text(results.first_error),
        "server_ms": _server_share(*stages),
    }


def lines(report: Report) -> Iterator[str]:
    """Yield the report for people."""
    requests, latency, server = report["requests"], report["latency_ms"], report["server_ms"]
    how = "binary" if report["binary"] else "JSON"
    pace = f" at {report['rate']:g}/s" if report["rate"] is not None else ""
    yield (f"{report['model']} at {report['url']}: {report['connections']} connections{pace}, {how} of "
           f"{report['request_bytes']:,} bytes, {report['seconds']:.1f} s")  # fmt: skip
    yield f"  Answered   {requests['ok']:,} requests, {requests['per_second']:,.1f}/s"
    if latency["p50"] is not None:
        yield "  Latency    " + ", ".join(f"{name} {latency[name]:.2f} ms" for name in ("p50", "p90", "p99", "max"))
    if server is not None:
        yield (f"  In it      waiting for the model {server['queue']:.3f} ms, in the model {server['infer']:.3f} ms "
               "(the server's own means)")  # fmt: skip
    if requests["unsent"]:
        yield f"  Not sent   {requests['unsent']:,}: all connections were busy, the server is slower than the rate"
    for reason, count in report["errors"].items():
        yield f"  Failed     {count:,}: {printable(reason)}"
    if report["first_error"]:
        yield f"             the first: {printable(report['first_error'])}"


def progress(seconds: float, recent: Latencies, failed: int) -> str:
    """Return a line on the second that has just gone by."""
    middle, tail = recent.percentile(0.5), recent.percentile(0.99)
    times = "" if middle is None or tail is None else f", p50 {middle * 1e3:.2f} ms, p99 {tail * 1e3:.2f} ms"
    return f"{seconds:5.0f} s  {recent.count:,} requests/s{times}{f', {failed:,} failed' if failed else ''}"


def _latencies(found: Latencies) -> Report:
    """Return milliseconds by share, None where there was no answer."""
    told: Report = {name: _milliseconds(found.percentile(share)) for name, share in _SHARES}
    told["max"] = _milliseconds(found.max) if found.count else None
    told["mean"] = _milliseconds(found.sum / found.count) if found.count else None
    return told


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 4)


def _server_share(before: Stages | None, after: Stages | None) -> Report | None:
    """Return the server's mean times of the requests in between; None if it does not tell, or is not one server."""
    if before is None or after is None:
        return None
    means = {}
    for name, key in (("queue", "queue"), ("compute_infer", "infer")):
        count, nanoseconds = (now - then for now, then in zip(after[name], before[name], strict=True))
        if count <= 0 or nanoseconds < 0:
            return None
        means[key] = round(nanoseconds / count / 1e6, 4)
    return means


def _error_text(body: bytes) -> str | None:
    """Return what the first error said, at most 300 characters."""
    try:
        text = str(orjson.loads(body)["error"])
    except (LookupError, TypeError, ValueError):
        text = body.decode("utf-8", "backslashreplace")
    return text[:300] or None
