"""Real servers for clients that others wrote.

The clients and the server need different versions of the same packages, so the server runs in an environment of
its own: the Python that PENSTOCK_SERVER_PYTHON names, which `make conformance` sets.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DEADLINE = 60.0
MAX_BODY_BYTES = 4 * 2**20
_WRITE_MODELS = """
import sys, pathlib
from tests.unit.runtime.model_files import write_all, write_scaled
folder = pathlib.Path(sys.argv[1])
write_all(folder)
write_scaled(folder / "numbered" / "1", factor=1.0)
write_scaled(folder / "numbered" / "2", factor=2.0)
"""


def server_python() -> str:
    """Return the Python that has what the server needs."""
    found = os.environ.get("PENSTOCK_SERVER_PYTHON")
    if not found:
        pytest.exit("PENSTOCK_SERVER_PYTHON is not set: run `make conformance`, or set it to what dev/venv prints", 2)
    return found


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that runs the project's code."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'runtime' / 'src'}:{ROOT}", **more}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one folder a model."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([server_python(), "-c", _WRITE_MODELS, str(folder)], env=environment(), check=True)
    return folder


@dataclass(frozen=True)
class Served:
    """A server's addresses; `grpc` is None where it has no such port."""

    http: str
    admin: str
    metrics: str
    grpc: str | None


class Server:
    """`penstock-runtime serve`, or another command, as a process on ports of the system's choice."""

    def __init__(self, *arguments: str, command: str = "serve", **env: str) -> None:
        """Start it."""
        self.log: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        ports = [f"--{name}-port=0" for name in ("http", "admin", "metrics", "grpc")]
        self._process = subprocess.Popen(
            [server_python(), "-m", "penstock_runtime", command, "--host", "127.0.0.1", *ports, *arguments],
            env=environment(**env), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def wait_log(self, message: str) -> dict[str, Any]:
        """Return the next line with `message`; fail if the server ends before."""
        end = time.monotonic() + DEADLINE
        while True:
            line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            assert line is not None, f"the server ended without {message!r}: {self.log}"
            self.log.append(line)
            if line["msg"] == message:
                return line

    def ready(self) -> Served:
        """Wait until the models are loaded."""
        ports = self.wait_log("listening")
        self.wait_log("ready")
        grpc = ports.get("grpc_port")
        return Served(
            f"127.0.0.1:{ports['http_port']}",
            f"127.0.0.1:{ports['admin_port']}",
            f"127.0.0.1:{ports['metrics_port']}",
            f"127.0.0.1:{grpc}" if grpc else None,
        )

    def end(self) -> list[dict[str, Any]]:
        """End it, and return all that it logged."""
        self._process.terminate()
        assert self._process.wait(DEADLINE) == 0
        self._reader.join(DEADLINE)
        while (line := self._lines.get_nowait()) is not None:
            self.log.append(line)
        return self.log

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of several models, one of which has two versions; its models may be exchanged."""
    yield from _serve(models, tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def agent(server: Served) -> Iterator[Served]:
    """An agent before that server, for its model "iris"; all else passes, too."""
    grpc = () if server.grpc is None else ("--upstream-grpc", server.grpc)
    started = Server(
        "--upstream", f"http://{server.http}", *grpc, "--model-name", "iris", "--drain-seconds", "0", command="agent",
        PENSTOCK_SERVING=json.dumps({"maxBodyBytes": MAX_BODY_BYTES}),
    )  # fmt: skip
    yield from _until_the_end(started)


@pytest.fixture
def own_server(models: Path, tmp_path: Path) -> Iterator[Served]:
    """The same, for a test that may leave it as it likes."""
    yield from _serve(models, tmp_path / "repository")


def _serve(models: Path, root: Path) -> Iterator[Served]:
    for name in ("echo", "half", "iris", "numbered", "picky", "scaled", "text"):
        shutil.copytree(models / name, root / name)
    started = Server(
        "--model-repository", str(root), "--versions", "all", "--model-control", "explicit", "--drain-seconds", "0",
        PENSTOCK_SERVING=json.dumps({"maxBodyBytes": MAX_BODY_BYTES}),
    )  # fmt: skip
    yield from _until_the_end(started)


def _until_the_end(started: Server) -> Iterator[Served]:
    try:
        yield started.ready()
        # Whatever the clients sent, nothing happened that nobody foresaw.
        assert [line for line in started.end() if line["msg"] == "unexpected failure"] == []
    finally:
        started.kill()
