"""Models and servers that the runtime's tests share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.unit.runtime.grpc_stub import Behaviour, Stub
from tests.unit.runtime.model_files import write_all, write_factors
from tests.unit.runtime.otlp import Collector
from tests.unit.runtime.process import AgentProcess, Server, ServerProcess, ServerThread
from tests.unit.runtime.targets import Target
from tests.unit.runtime.tf_serving import TfServing

Start = Callable[..., ServerThread]
StartProcess = Callable[..., ServerProcess]
StartAgent = Callable[..., AgentProcess]
StartTf = Callable[..., TfServing]
StartStub = Callable[..., Stub]
Pair = tuple[ServerThread, ServerThread]
ProcessPair = tuple[ServerProcess, ServerProcess]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one folder a model."""
    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    return folder


@pytest.fixture(scope="session")
def factors(models: Path) -> Path:
    """Models of one number a row: y = factor * x, k = the row's class, which is always 1."""
    write_factors(models)
    return models


@pytest.fixture
def start_server(models: Path) -> Iterator[Start]:
    """Start servers of a model in `models`, as "m", in threads; all are ended with the test."""
    yield from _starter(models, ServerThread)


@pytest.fixture
def start_process(models: Path) -> Iterator[StartProcess]:
    """The same, as processes."""
    yield from _starter(models, ServerProcess)


@pytest.fixture
def start_agent() -> Iterator[StartAgent]:
    """Start agents before the server at a URL, for its model "m"; all are ended with the test."""
    started: list[AgentProcess] = []

    def start(upstream: str, *arguments: str, **env: str) -> AgentProcess:
        started.append(AgentProcess("--upstream", upstream, "--model-name", "m", *arguments, env=env))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()


@pytest.fixture
def start_tf(models: Path) -> Iterator[StartTf]:
    """Start servers that speak as TensorFlow Serving does, of some outputs of a model; all are ended with the test."""
    started: list[TfServing] = []

    def start(model: str, *columns: str) -> TfServing:
        started.append(TfServing(models / model, columns))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def start_repository() -> Iterator[Callable[..., ServerThread]]:
    """Start servers of a whole repository, in threads; all are ended with the test."""
    started: list[ServerThread] = []

    def start(root: Path, *arguments: str, **env: str) -> ServerThread:
        started.append(
            ServerThread("--model-repository", str(root), "--model-control", "explicit", *arguments, env=env)
        )
        return started[-1]

    yield start
    for server in started:
        server.kill()


S = TypeVar("S", ServerThread, ServerProcess)


def _starter(models: Path, kind: type[S]) -> Iterator[Callable[..., S]]:
    started: list[S] = []

    def start(model: str, *arguments: str, **env: str) -> S:
        server = kind("--model-path", str(models / model), "--model-name", "m", *arguments, env=env)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


def _shared(models: Path, model: str) -> Iterator[Server]:
    server = ServerThread("--model-path", str(models / model), "--model-name", "m")
    try:
        yield server.ready()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def iris(models: Path) -> Iterator[Server]:
    """A server of the iris forest that tests share; they must not rely on its counters."""
    yield from _shared(models, "iris")


@pytest.fixture(scope="session")
def echo(models: Path) -> Iterator[Server]:
    """A server of the echo model that tests share."""
    yield from _shared(models, "echo")


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Give the root logger back as it was: the command line sets up its own."""
    root, own = logging.getLogger(), logging.getLogger("penstock_runtime")
    before = root.handlers, root.level, own.level
    yield
    root.handlers = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


@pytest.fixture
def pair(start_server: Start) -> Pair:
    """A server of revision "stable" and one of revision "canary", both of the iris forest."""
    stable = start_server("iris", PENSTOCK_REVISION="stable")
    canary = start_server("iris", PENSTOCK_REVISION="canary")
    return stable.ready(), canary.ready()


@pytest.fixture
def process_pair(start_process: StartProcess) -> ProcessPair:
    """The same, as processes."""
    stable = start_process("iris", PENSTOCK_REVISION="stable")
    canary = start_process("iris", PENSTOCK_REVISION="canary")
    return stable.ready(), canary.ready()


@pytest.fixture
def start_stub() -> Iterator[StartStub]:
    """Start servers over gRPC that answer by a behaviour; all are ended with the test."""
    started: list[Stub] = []

    def start(behaviour: Behaviour | None = None, port: int = 0, host: str = "127.0.0.1") -> Stub:
        started.append(Stub(behaviour, port, host))
        return started[-1]

    yield start
    for stub in started:
        stub.close()


@pytest.fixture
def targets() -> Iterator[list[Target]]:
    """Targets that a test starts, to be ended with it."""
    started: list[Target] = []
    yield started
    for target in started:
        target.close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector of traces, to which servers send theirs at once."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with Collector() as running:
        yield running
