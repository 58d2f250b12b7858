"""`make soak`: ten million requests, the model exchanged a hundred times; memory and descriptors watched."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bench.server import host
from bench.server.cases import Case
from bench.server.measure import ask, prepare
from bench.server.messages import METHOD
from bench.server.models import ModelFile
from bench.server.payloads import INFER_PATH, grpc_frame
from bench.server.processes import CLIENT_CORE, Process, free_ports, pinned
from bench.server.tools import h2load_command, read_wrk, wrk_command
from bench.soak import report
from bench.soak.calls import Calls
from bench.soak.models import ROW, write_twins
from bench.soak.samples import LEAST_SAMPLES, Sample, judge, look
from e2e.cluster.console import Problem, telling_line
from e2e.cluster.places import ROOT

ANSWERED = re.compile(r'^penstock_requests_total\{.*outcome="(\w+)"\} (\d+)$', re.MULTILINE)
POLL_SECONDS = 0.25
TELL_SECONDS = 5.0
FOREVER_SECONDS = 86400
# A round of calls over gRPC may end so much later than the rest.
LAST_ROUND_SECONDS = 300.0
EXCHANGES = 100


@dataclass
class Soak:
    """One run. `failed`: requests that were not answered with 200, by the server's own count."""

    pid: int
    ports: dict[str, int]
    model: Path
    twins: tuple[Path, Path]
    body: bytes
    samples: list[Sample] = field(default_factory=list)
    exchanges: int = 0
    failed: int = 0
    labels: int = 0

    def answered(self) -> int:
        """Return how many requests were answered well."""
        counts = {outcome: int(count) for outcome, count in ANSWERED.findall(self._call("metrics", "GET", "/metrics"))}
        self.failed = sum(counts.values()) - counts["ok"]
        return counts["ok"]

    def exchange(self) -> None:
        """Put the other twin into the model's place and have it loaded; and send a label, as others would."""
        new = self.model.with_suffix(".new")
        new.write_bytes(self.twins[(self.exchanges + 1) % 2].read_bytes())
        new.rename(self.model)
        self._call("admin", "POST", "/v2/repository/models/m/load")
        self.exchanges += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=60)
        connection.request("POST", INFER_PATH, self.body)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        label = json.dumps([{"id": reply.headers["penstock-prediction-id"], "label": 0}])
        self.labels += json.loads(self._call("admin", "POST", "/v2/models/m/feedback", label))["accepted"]

    def watch(self, requests: int, every: int, wrk: subprocess.Popen[str], calls: Calls, console: Console) -> None:
        """Exchange the model every so many requests until all are answered; Problem if the load ends before."""
        began = told = time.monotonic()
        while (done := self.answered()) < requests:
            if wrk.poll() is not None:
                raise Problem("the load ended by itself", wrk.communicate()[0])
            if done >= (self.exchanges + 1) * every:
                self.exchange()
                self.samples.append(look(self.pid, done))
            # Behind the look, which thus meets no connections of two rounds.
            calls.keep_up()
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                now = look(self.pid, done)
                console.print(f"{told - began:6.0f} s  {done:,} requests, {self.exchanges} exchanges, {self.failed} "
                              f"failed, {now.memory_mb:.1f} MB, {now.descriptors} descriptors, {now.threads} threads",
                              markup=False, highlight=False)  # fmt: skip
            time.sleep(POLL_SECONDS)

    def _call(self, port: str, method: str, path: str, body: str | None = None) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=60)
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            text = reply.read().decode()
            if reply.status != 200:
                raise Problem(f"{method} {path} was answered with {reply.status}", text)
            return text
        finally:
            connection.close()


def run(requests: int, every: int, http: Case, grpc: Case, console: Console) -> report.Result:
    """Return what came of it; Problem if it could not be run."""
    with tempfile.TemporaryDirectory(prefix="penstock-soak-") as name:
        folder = Path(name)
        twins = write_twins()
        model = folder / "model" / "model.onnx"
        model.parent.mkdir()
        model.write_bytes(twins[0].read_bytes())
        over_http, over_grpc = (prepare(case, ModelFile("iris", model, ROW, 0.0, ""), folder) for case in (http, grpc))
        ports = dict(zip(("http", "grpc", "admin", "metrics"), free_ports(4), strict=True))
        server = _serve(model.parent, ports, folder / "server.log")
        wrk, calls = None, None
        try:
            server.wait_ready(ports["http"], "/v2/health/ready")
            answer, _ = ask(grpc, ports["grpc"], over_grpc)
            # A round spans exchanges: what a connection keeps is of several models.
            url = f"http://127.0.0.1:{ports['grpc']}{METHOD}"
            words = h2load_command(over_grpc.body, over_grpc.headers, grpc, url, f"-n{every}")
            calls = Calls(pinned(CLIENT_CORE, words), every, len(grpc_frame(answer)))
            load = pinned(CLIENT_CORE, wrk_command(over_http.script, http, ports["http"], FOREVER_SECONDS))
            wrk = subprocess.Popen(load, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            soak = Soak(server.pid, ports, model, twins, over_http.body.read_bytes())
            began = time.monotonic()
            soak.watch(requests, every, wrk, calls, console)
            wrk.send_signal(signal.SIGINT)
            outcome = read_wrk(wrk.communicate(timeout=60)[0])
            calls.finish(LAST_ROUND_SECONDS)
            seconds = time.monotonic() - began
            answered = soak.answered()
            return report.Result(
                http=report.Side(http, answered - calls.answered, outcome.errors),
                grpc=report.Side(grpc, calls.answered, f"{calls.failed:,} calls" if calls.failed else ""),
                exchanges=soak.exchanges, failed=soak.failed, labels=soak.labels, seconds=seconds,
                verdict=judge(soak.samples), samples=soak.samples, host=host.look(),
            )  # fmt: skip
        finally:
            if calls is not None:
                calls.close()
            if wrk is not None and wrk.poll() is None:
                wrk.kill()
                wrk.wait()
            server.close()


def _serve(model: Path, ports: dict[str, int], log: Path) -> Process:
    words = [sys.executable, "-m", "penstock_runtime", "serve", "--model-path", str(model), "--model-name", "m",
             "--host", "127.0.0.1", "--model-control", "explicit",
             # Else gRPC connections have an age, and h2load does not open others in their place.
             "--drain-seconds", "0"]  # fmt: skip
    words += [word for port, number in ports.items() for word in (f"--{port}-port", str(number))]
    return Process(words, {"PYTHONPATH": str(ROOT / "runtime/src"), "PYTHONSAFEPATH": "1"}, log)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000_000, help="to be answered (10,000,000)")
    parser.add_argument("--every", type=int, help="requests between exchanges of the model (a hundredth of all)")
    parser.add_argument("--connections", type=int, default=64, help="over HTTP, each with one request at once (64)")
    parser.add_argument("--channels", type=int, default=4, help="connections over gRPC (4)")
    parser.add_argument("--streams", type=int, default=4, help="calls at once over each of them (4)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks", help="folder of the report")
    options = parser.parse_args()
    every = options.every or options.requests // EXCHANGES
    if every < 1 or options.requests // every <= LEAST_SAMPLES:
        parser.error(f"the model must be exchanged more than {LEAST_SAMPLES} times: give --every fewer requests")
    http = Case("soak-json", "iris, JSON", "iris", "json", options.connections, ())
    grpc = Case("soak-grpc", "iris, gRPC", "iris", "grpc", options.channels, (), options.streams)
    console = Console(stderr=True)
    try:
        host.need_tools()
        result = run(options.requests, every, http, grpc, console)
    except (Problem, ValueError) as problem:
        console.print(f"penstock: {telling_line(str(problem))}", markup=False)
        return 1
    words = " ".join(sys.argv[1:])
    report.write(result, options.out, f'make soak ARGS="{words}"' if words else "make soak")
    console.print(report.text_of(result), markup=False, highlight=False)
    return 0 if result.passed else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
