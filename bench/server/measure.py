"""The measurement: rounds over cases and servers, each run warmed, watched and checked."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from bench.server.apps.model import Model
from bench.server.cases import ALONE, Case
from bench.server.messages import METHOD
from bench.server.models import ModelFile
from bench.server.payloads import INFER_PATH, differences, grpc_frame, read_answer, request
from bench.server.processes import CLIENT_CORE, Meter, foreign_share, pinned
from bench.server.servers import Alone, Server, Servers
from bench.server.stats import Run
from bench.server.tools import Outcome, h2load_command, read_h2load, read_wrk, wrk_command, wrk_script
from e2e.cluster.console import Problem

NOT_SERVED = "not served"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how often: whole seconds of warm-up and of measuring, rounds over all servers."""

    warm: int
    seconds: int
    rounds: int


@dataclass(slots=True)
class Results:
    """What was measured so far; `skipped` says why a server has no runs in a case."""

    runs: list[Run] = field(default_factory=list)
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """A case's request on disk, and how long its answer is by server."""

    body: Path
    script: Path
    headers: dict[str, str]
    answer_bytes: dict[str, int]


Tell = Callable[[str], None]


def measure_model(
    model: ModelFile, cases: Sequence[Case], pace: Pace, folder: Path, results: Results, tell: Tell
) -> None:  # fmt: skip
    """Measure all `cases`, which are of `model`, into `results`; `tell` hears what is being done."""
    names = list(dict.fromkeys(name for case in cases for name in case.servers if name != ALONE))
    with Servers(model, folder) as servers:
        running: dict[str, Server] = {}
        for name in names:
            tell(f"{model.name}: starting {name}")
            running[name] = servers.start(name)
        alone = Alone(model, folder) if any(ALONE in case.servers for case in cases) else None
        try:
            for case in cases:
                measure_case(case, model, running, alone, pace, folder, results, tell)
        finally:
            if alone is not None:
                alone.process.close()


def measure_case(  # noqa: PLR0913, PLR0917 - the parts of a measurement, named at the only call
    case: Case, model: ModelFile, running: dict[str, Server], alone: Alone | None, pace: Pace, folder: Path,
    results: Results, tell: Tell,
) -> None:  # fmt: skip
    """Check every server's answer once, then measure the servers in turn, round by round."""
    load = prepare(case, model, folder)
    names: list[str] = []
    for name in case.servers:
        if name == ALONE:
            names.append(name)
            continue
        tell(f"{case.id}: checking {name}")
        wrong = check(case, running[name], load, model)
        if wrong:
            results.skipped[case.id, name] = wrong
        else:
            names.append(name)
    for number in range(pace.rounds):
        for name in names:
            tell(f"{case.id}: round {number + 1} of {pace.rounds}, {name}")
            if name == ALONE:
                results.runs.append(_run_alone(case, alone, pace))
            else:
                results.runs.append(_run(case, running[name], load, pace))


def prepare(case: Case, model: ModelFile, folder: Path) -> Load:
    """Write the case's request into `folder`."""
    input_name = "X" if model.name == "iris" else "x"
    body, headers = request(case.protocol, input_name, model.row)
    file, script = folder / f"{case.id}.body", folder / f"{case.id}.lua"
    file.write_bytes(grpc_frame(body) if case.protocol == "grpc" else body)
    script.write_text(wrk_script(file, headers))
    return Load(file, script, headers, {})


def check(case: Case, server: Server, load: Load, model: ModelFile) -> str:
    """Return why the case cannot be measured on `server`: it is not served, or the answer is wrong."""
    port = server.port(case.protocol)
    if not port:
        return NOT_SERVED
    try:
        body, headers = ask(case, port, load)
        got = read_answer(case.protocol, body, headers)
    except Unanswered as error:
        return f"{NOT_SERVED}: {error}"
    except (ValueError, LookupError, TypeError) as error:
        return f"no answer of the protocol: {error!r}"
    load.answer_bytes[server.name] = len(body)
    reference = Model(str(model.path))
    expected = {name: array for (name, _), array in zip(reference.outputs, reference(model.row), strict=True)}
    return differences(expected, got)


class Unanswered(Exception):  # noqa: N818 - what happened to a request
    """A request got no answer, or an error."""


def ask(case: Case, port: int, load: Load) -> tuple[bytes, dict[str, str]]:
    """Send the case's request once; return the body (for gRPC: the message) and the headers, or raise Unanswered."""
    body = load.body.read_bytes()
    if case.protocol == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            call: Any = channel.unary_unary(METHOD, None, None)
            try:
                return call(body[5:], timeout=30), {}
            except grpc.RpcError as error:
                raise Unanswered(f"{error.code().name} {error.details()}"[:120]) from None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", INFER_PATH, body, load.headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(repr(error)[:120]) from None
    finally:
        connection.close()
    if response.status != 200:
        raise Unanswered(f"HTTP {response.status} {answer[:80].decode(errors='replace')}")
    return answer, {name.lower(): value for name, value in response.getheaders()}


def _run(case: Case, server: Server, load: Load, pace: Pace) -> Run:
    drive(case, server, load, pace.warm)
    before = Meter.read(server.processes)
    outcome = drive(case, server, load, pace.seconds)
    after = Meter.read(server.processes)
    return run_of(case, server.name, outcome, before, after)


def run_of(case: Case, name: str, outcome: Outcome, before: Meter, after: Meter) -> Run:
    """Return the run that lay between two readings of the counters."""
    wall = after.at - before.at
    server = after.server - before.server
    answers = outcome.rate * wall
    return Run(case.id, name, outcome.rate, outcome.p50, outcome.p99, server / answers if answers else 0.0,
               server / wall, foreign_share(before, after), outcome.errors)  # fmt: skip


def _run_alone(case: Case, alone: Alone | None, pace: Pace) -> Run:
    if alone is None:
        raise ValueError("ONNX Runtime alone was not started")
    alone.run(pace.warm)
    before = Meter.read([alone.process])
    rate = alone.run(pace.seconds)
    after = Meter.read([alone.process])
    return run_of(case, ALONE, Outcome(rate, 1 / rate, 1 / rate), before, after)


def drive(case: Case, server: Server, load: Load, seconds: int) -> Outcome:
    """Load the server for `seconds`, by wrk, or by h2load if it is gRPC; `check` has been called."""
    if case.protocol != "grpc":
        return read_wrk(_tool(wrk_command(load.script, case, server.http_port, seconds), seconds))
    log = load.body.with_suffix(".log")
    log.unlink(missing_ok=True)
    url = f"http://127.0.0.1:{server.grpc_port}{METHOD}"
    text = _tool(h2load_command(load.body, load.headers, case, url, f"-D{seconds}", f"--log-file={log}"), seconds)
    with log.open() as lines:
        return read_h2load(text, lines, seconds, load.answer_bytes[server.name])


def _tool(words: Iterable[str], seconds: float) -> str:
    words = pinned(CLIENT_CORE, list(words))
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        raise Problem(f"{words[3]} did not end {60} s after its time", f"by hand: {' '.join(words)}") from None
    if done.returncode:
        raise Problem(
            f"{words[3]} failed: {(done.stderr or done.stdout).strip()[-300:]}", f"by hand: {' '.join(words)}"
        )
    return done.stdout
