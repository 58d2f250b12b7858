"""Models and servers that the runtime's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.runtime.model_files import write_all
from tests.unit.runtime.process import ServerProcess

Start = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one folder a model."""
    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    return folder


@pytest.fixture
def start_server(models: Path) -> Iterator[Start]:
    """Start servers of a model in `models`, as "m"; all are ended with the test."""
    started: list[ServerProcess] = []

    def start(model: str, *arguments: str, **env: str) -> ServerProcess:
        path = ("--model-path", str(models / model), "--model-name", "m")
        server = ServerProcess(*path, *arguments, env=env)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


def _shared(models: Path, model: str) -> Iterator[ServerProcess]:
    server = ServerProcess("--model-path", str(models / model), "--model-name", "m")
    try:
        yield server.ready()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def iris(models: Path) -> Iterator[ServerProcess]:
    """A server of the iris forest that tests share; they must not rely on its counters."""
    yield from _shared(models, "iris")


@pytest.fixture(scope="session")
def echo(models: Path) -> Iterator[ServerProcess]:
    """A server of the echo model that tests share."""
    yield from _shared(models, "echo")
