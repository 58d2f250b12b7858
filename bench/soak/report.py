"""The report of a soak run: a page with its verdict and a picture, and the samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.server.cases import Case
from bench.server.host import Host
from bench.soak.samples import MOST_GROWTH, Sample, Verdict, as_rows


@dataclass(frozen=True, slots=True)
class Side:
    """The load over one protocol: requests that were answered well, and what the client saw fail (empty: nothing)."""

    load: Case
    requests: int
    errors: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a run saw. `failed` is by the server's count, over both protocols."""

    http: Side
    grpc: Side
    exchanges: int
    failed: int
    labels: int
    seconds: float
    verdict: Verdict
    samples: Sequence[Sample]
    host: Host

    @property
    def requests(self) -> int:
        """Requests that were answered well."""
        return self.http.requests + self.grpc.requests

    @property
    def passed(self) -> bool:
        """Whether nothing failed and nothing grew, and both protocols were used."""
        failed = self.failed or self.http.errors or self.grpc.errors
        return self.verdict.flat and not failed and min(self.http.requests, self.grpc.requests) > 0


def text_of(result: Result) -> str:
    """Return the result in a few lines."""
    first, last = result.samples[0], result.samples[-1]
    verdict = result.verdict
    return (
        f"{result.requests:,} requests in {result.seconds:,.0f} s ({result.requests / result.seconds:,.0f}/s), the "
        f"model exchanged {result.exchanges} times, {result.labels} labels taken.\n"
        f"Over HTTP: {result.http.requests:,}; failed by the client's count: {result.http.errors or 'none'}.\n"
        f"Over gRPC: {result.grpc.requests:,} ({result.grpc.requests / result.requests:.0%}); failed by the client's "
        f"count: {result.grpc.errors or 'none'}.\n"
        f"Failed by the server's count, over both: {result.failed}.\n"
        f"Memory: {first.memory_mb:.1f} MB at the first exchange, {last.memory_mb:.1f} MB at the last; "
        f"{verdict.memory_growth:+.1%} from the first tenth after warming to the last (bound {MOST_GROWTH:.0%}).\n"
        f"Descriptors: {first.descriptors} and {last.descriptors}. Threads: {first.threads} and {last.threads}.\n"
        f"{'Passed' if result.passed else 'FAILED'}."
    )


def write(result: Result, folder: Path, command: str) -> None:
    """Write soak.md, soak.svg and soak.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _draw(result.samples, folder / "soak.svg")
    http, grpc = result.http.load, result.grpc.load
    rows = {"command": command, "host": asdict(result.host),
            "requests": {"http": result.http.requests, "grpc": result.grpc.requests},
            "samples": as_rows(result.samples)}  # fmt: skip
    (folder / "soak.json").write_text(json.dumps(rows, indent=1) + "\n")
    page = f"""# Soak run of the model server

Written by `{command}`. A forest of 100 trees under as much load as one core answers, over both protocols at once: JSON
over HTTP ({http.connections} connections, wrk), raw contents over gRPC ({grpc.connections} connections of
{grpc.streams} streams, h2load, opened anew now and then). A new file takes the model's place and is loaded while it
serves, again and again.

{text_of(result)}

![Memory and descriptors over the requests](soak.svg)

{_machine(result.host)}
"""
    (folder / "soak.md").write_text(page)


def _machine(host: Host) -> str:
    return (
        f"{host.date}, commit {host.commit}; {host.cpu}, {host.cores} cores, {host.memory_gb} GB, {host.system}, "
        f"Python {host.python}, ONNX Runtime {host.versions['onnxruntime']}."
    )


def _draw(samples: Sequence[Sample], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "penstock", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        memory, others = figure.subplots(1, 2)
        requests = [each.requests / 1e6 for each in samples]
        memory.plot(requests, [each.memory_mb for each in samples], color="#1f77b4")
        memory.set_ylim(bottom=0)
        memory.set_title("resident memory, MB")
        others.plot(requests, [each.descriptors for each in samples], label="descriptors", color="#ff7f0e")
        others.plot(requests, [each.threads for each in samples], label="threads", color="#2ca02c")
        others.set_ylim(bottom=0)
        others.legend(frameon=False)
        for axis in (memory, others):
            axis.set_xlabel("million requests")
            axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
