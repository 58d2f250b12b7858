"""What a second core adds: one process on one core, one on two, and two processes on two."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.server.cases import PENSTOCK, Case
from bench.server.measure import Load, Pace, Tell, check, drive, prepare
from bench.server.models import ModelFile
from bench.server.processes import BOTH_CORES, SERVER_CORE, Meter, foreign_share
from bench.server.servers import Server, Servers
from e2e.cluster.console import Problem

# A model dearer than HTTP, and one that is not. Iris would say no more than the MLP: the client has as large a part.
CASES = (
    Case("workers-conv", "convnet, binary, 16 connections", "conv", "binary", 16, ()),
    Case("workers-mlp", "MLP, binary, 64 connections", "mlp", "binary", 64, ()),
)
HEALTH_PATH = "/v2/health/ready"


@dataclass(frozen=True, slots=True)
class Setup:
    """A way to run Penstock: on which cores, with which words beyond the usual ones."""

    title: str
    cores: tuple[int, ...]
    words: tuple[str, ...]


ONE_CORE = Setup("one core", (SERVER_CORE,), ("--workers", "1"))
SETUPS = (
    ONE_CORE,
    Setup("two cores, one process", BOTH_CORES, ("--workers", "1")),
    Setup("two cores, `--workers 2`", BOTH_CORES, ("--workers", "2")),
)


@dataclass(frozen=True, slots=True)
class Scaled:
    """One run of a setup: answers a second, latencies and CPU time an answer in seconds.

    `client`: what the client used, in cores; `foreign`: the share of the setup's cores that others took; `errors`: what
    makes the run void.
    """

    title: str
    setup: str
    rate: float
    p50: float
    p99: float
    cpu: float
    client: float
    foreign: float
    errors: str = ""


def measure_workers(models: Mapping[str, ModelFile], pace: Pace, folder: Path, tell: Tell) -> list[Scaled]:
    """Measure the setups in turn, round by round; Problem where one answers wrongly."""
    runs: list[Scaled] = []
    for case in CASES:
        model = models[case.model]
        load = prepare(case, model, folder)
        with Servers(model, folder) as servers:
            running = {setup: start(servers, setup) for setup in SETUPS}
            for setup, server in running.items():
                wrong = check(case, server, load, model)
                if wrong:
                    raise Problem(f"{PENSTOCK} ({setup.title}) cannot be asked {case.title}: {wrong}")
            for number in range(pace.rounds):
                for setup, server in running.items():
                    tell(f"{case.id}: round {number + 1} of {pace.rounds}, {setup.title}")
                    runs.append(_run(case, setup, server, load, pace))
    return runs


def start(servers: Servers, setup: Setup) -> Server:
    """Start Penstock so, and wait until all its processes are ready; Problem if they never are."""
    server = servers.start(PENSTOCK, more=setup.words, cores=setup.cores)
    # Until here the model is ready in the worker that was asked.
    server.processes[0].wait_ready(server.http_port, HEALTH_PATH)
    return server


def _run(case: Case, setup: Setup, server: Server, load: Load, pace: Pace) -> Scaled:
    drive(case, server, load, pace.warm)
    before, client_before = Meter.read(server.processes, setup.cores), _ended_seconds()
    outcome = drive(case, server, load, pace.seconds)
    after, client = Meter.read(server.processes, setup.cores), _ended_seconds() - client_before
    wall = after.at - before.at
    answers = outcome.rate * wall
    cpu = (after.server - before.server) / answers if answers else 0.0
    shared = client if len(setup.cores) > 1 else 0.0
    foreign = foreign_share(before, after, cores=len(setup.cores), client=shared)
    return Scaled(case.title, setup.title, outcome.rate, outcome.p50, outcome.p99, cpu, client / wall, foreign,
                  outcome.errors)  # fmt: skip


def _ended_seconds() -> float:
    """Return the CPU time of this process's children that have ended, of which the client is the last."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratios(runs: Sequence[Scaled], base: Sequence[Scaled]) -> list[float]:
    """Return how many times the rate of `base` each of `runs` had, round by round."""
    return [run.rate / one.rate for run, one in zip(runs, base, strict=False) if one.rate]


def most_ratio(base: Sequence[Scaled]) -> float:
    """Return what two cores can have of the rate of `base` on one, as the client takes its part of them.

    By the CPU time that an answer costs either; on one core the client had another for itself.
    """
    return 2 / (1 + median(run.client / (run.rate * run.cpu) for run in base))
