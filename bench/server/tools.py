"""wrk for HTTP/1.1 and h2load for gRPC: what they are told, and what they tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.server.cases import Case
from bench.server.payloads import INFER_PATH

_MARK = "penstock "
_LUA = """\
local file = io.open({body}, "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{mark}{{"requests":%d,"us":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"p50":%.1f,"p99":%.1f}}\\n',
    summary.requests, summary.duration, e.status, e.connect, e.read, e.write, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run of a load generator: answers a second, latencies in seconds, and what went wrong, or nothing."""

    rate: float
    p50: float
    p99: float
    errors: str = ""


def wrk_script(body: Path, headers: Mapping[str, str]) -> str:
    """Return the Lua script that posts the file `body` with `headers`, and prints its results as JSON."""
    lines = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    return _LUA.format(body=json.dumps(str(body)), headers=lines, mark=_MARK)


def wrk_command(script: Path, case: Case, port: int, seconds: int) -> list[str]:
    """Return the words that run it for `seconds`."""
    return ["wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", "10s", "--latency",
            "-s", str(script), f"http://127.0.0.1:{port}{INFER_PATH}"]  # fmt: skip


def read_wrk(text: str) -> Outcome:
    """Return what wrk printed; raises ValueError if it is not what the script prints."""
    line = next((line for line in text.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise ValueError(f"wrk did not tell its results: {text.strip()[-300:]}")
    told = json.loads(line.removeprefix(_MARK))
    wrong = [f"{told[key]:,} {word}" for key, word in (
        ("status", "answers were no 2xx"), ("connect", "connections failed"), ("read", "reads failed"),
        ("write", "writes failed"), ("timeout", "requests timed out"),
    ) if told[key]]  # fmt: skip
    good = told["requests"] - told["status"]
    if not told["requests"]:
        wrong.append("no answers")
    return Outcome(good / (told["us"] / 1e6), told["p50"] / 1e6, told["p99"] / 1e6, ", ".join(wrong))


def h2load_command(
    body: Path, headers: Mapping[str, str], case: Case, url: str, *more: str
) -> list[str]:  # fmt: skip
    """Return the words that post `body` to `url`; `more` options tell how long or how often."""
    words = ["h2load", "-t1", f"-c{case.connections}", f"-m{case.streams}", *more, f"--data={body}"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    return [*words, url]


@dataclass(frozen=True, slots=True)
class Counts:
    """What h2load counted: requests, and bytes of bodies that came.

    A gRPC error is an HTTP 200 without data, which is among the `good`.
    """

    done: int
    good: int
    failed: int
    errored: int
    timed_out: int
    data: int


def count_h2load(text: str) -> Counts:
    """Return the counts that h2load printed; raises ValueError if the output is not h2load's."""
    counts = re.search(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    data = re.search(r"traffic: .*\((\d+)\) data", text)
    if counts is None or data is None:
        raise ValueError(f"h2load did not tell its results: {text.strip()[-300:]}")
    return Counts(*map(int, (*counts.groups(), data[1])))


def read_h2load(text: str, log: Iterable[str], seconds: float, answer_bytes: int) -> Outcome:
    """Return what h2load printed and logged, where an answer has `answer_bytes`; ValueError as `count_h2load`."""
    told = count_h2load(text)
    wrong = [f"{number:,} {word}" for number, word in (
        (told.failed, "failed"), (told.errored, "errored"), (told.timed_out, "timed out"),
    ) if number]  # fmt: skip
    times = sorted(int(line.split("\t")[2]) for line in log)
    if told.good and told.data < 0.95 * told.good * answer_bytes:
        missing = 1 - told.data / (told.good * answer_bytes)
        wrong.append(f"answers without their data ({missing:.0%} of it is missing)")
    if not told.done or not times:
        wrong.append("no answers")
        return Outcome(0.0, 0.0, 0.0, ", ".join(wrong))
    return Outcome(told.good / seconds, percentile(times, 0.5) / 1e6, percentile(times, 0.99) / 1e6, ", ".join(wrong))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the element below which `share` of `ordered` lies; raises IndexError if there is none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
