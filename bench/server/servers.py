"""How each server is started, and stopped again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from bench.server.cases import ALONE, BARE, KSERVE, LEAN, MLSERVER, MLSERVER_BATCHING, PENSTOCK, Protocol
from bench.server.models import ModelFile
from bench.server.processes import POLL_SECONDS, SERVER_CORE, Process, free_ports
from e2e.cluster.console import Problem, output
from e2e.cluster.places import CACHE, ROOT

# What a server speaks by its maker's word; whether gRPC is answered is found out.
PROTOCOLS: dict[str, tuple[Protocol, ...]] = {
    PENSTOCK: ("json", "binary", "grpc"), LEAN: ("json", "binary"), MLSERVER: ("json", "grpc"),
    MLSERVER_BATCHING: ("json", "grpc"),
    KSERVE: ("json", "binary", "grpc"), BARE: ("json", "binary", "grpc"),
}  # fmt: skip
MLSERVER_BATCHES = {"max_batch_size": 32, "max_batch_time": 0.001}
READY_PATH = "/v2/models/m/ready"
LATE_SECONDS = 10.0
# Settings that serve the peer best. Its adaptive batching is measured beside it: it helps some cases, and slows others.
MLSERVER_SETTINGS = {
    "debug": False, "parallel_workers": 0, "metrics_endpoint": None, "gzip_enabled": False, "host": "127.0.0.1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """One process: its words and environment; `ready_port` 0 = it has no HTTP to ask."""

    words: list[str]
    env: dict[str, str]
    ready_port: int


@dataclass(slots=True)
class Server:
    """A running server of one model, which may be two processes (the bare stack). Ports are 0 where not served."""

    name: str
    processes: list[Process] = field(default_factory=list)
    http_port: int = 0
    grpc_port: int = 0
    start_seconds: float = 0.0

    def port(self, protocol: Protocol) -> int:
        """Return where `protocol` is served, or 0."""
        if protocol not in PROTOCOLS[self.name]:
            return 0
        return self.grpc_port if protocol == "grpc" else self.http_port

    def close(self) -> None:
        """End its processes."""
        for process in self.processes:
            process.close()


class Servers:
    """Servers of one model that run side by side, idle but for the one that is asked; a context manager."""

    def __init__(self, model: ModelFile, folder: Path) -> None:
        """Their files go into `folder`."""
        self._model = model
        self._folder = folder
        self._running: list[Server] = []

    def start(
        self, name: str, *, env: dict[str, str] | None = None, more: Sequence[str] = (),
        cores: Sequence[int] = (SERVER_CORE,), before: Sequence[str] = (),
    ) -> Server:  # fmt: skip
        """Start server `name` and wait until it is ready; Problem if it does not start.

        `more` words come behind the usual ones, and win over them; `before` is a command that runs it, such as `nice`.
        """
        http_port, grpc_port = free_ports(2)
        folder = self._folder / f"{name}-{self._model.name}-{http_port}"  # there may be several of one name
        folder.mkdir(parents=True, exist_ok=True)
        server = Server(name, http_port=http_port)
        self._running.append(server)
        for index, plan in enumerate(plans(name, self._model, folder, http_port, grpc_port)):
            words = [*before, *plan.words, *more]
            process = Process(words, {**plan.env, **(env or {})}, folder / f"{index}.log", cores)
            server.processes.append(process)
            if plan.ready_port:
                server.start_seconds = process.wait_ready(plan.ready_port, READY_PATH)
        # A server that says it is ready without listening serves no gRPC; the bare stack's says nothing.
        if "grpc" in PROTOCOLS[name] and _listens(grpc_port, LATE_SECONDS if name == BARE else 0.5):
            server.grpc_port = grpc_port
        return server

    def stop(self, server: Server) -> None:
        """End one."""
        server.close()
        self._running.remove(server)

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all."""
        for server in self._running:
            server.close()


def plans(name: str, model: ModelFile, folder: Path, http_port: int, grpc_port: int) -> Iterable[Plan]:
    """Return the processes of server `name`; what they read is written into `folder`."""
    path = str(model.path)
    match name:
        case "penstock" | "lean":
            module = "penstock_runtime" if name == PENSTOCK else "bench.server.apps.lean"
            words = [sys.executable, "-m", module, "serve", "--model-path", path, "--model-name", "m",
                     "--host", "127.0.0.1", "--http-port", str(http_port), "--grpc-port", str(grpc_port),
                     "--admin-port", "0", "--metrics-port", "0",
                     # Else gRPC connections have an age, and h2load does not open others in their place.
                     "--drain-seconds", "0"]  # fmt: skip
            return [Plan(words, _env(ROOT / "runtime/src"), http_port)]
        case "bare":
            both = (("bare_http", http_port), ("bare_grpc", grpc_port))
            return [
                Plan([sys.executable, "-m", f"bench.server.apps.{app}", path, str(port)], _env(),
                     http_port if app == "bare_http" else 0)
                for app, port in both
            ]  # fmt: skip
        case "mlserver" | "mlserver-batching":
            settings = {**MLSERVER_SETTINGS, "http_port": http_port, "grpc_port": grpc_port}
            (folder / "settings.json").write_text(json.dumps(settings))
            implementation = "bench.server.apps.mlserver_runtime.OnnxRuntime"
            of_model = {"name": "m", "implementation": implementation, "parameters": {"uri": path}}
            batches = MLSERVER_BATCHES if name == MLSERVER_BATCHING else {}
            (folder / "model-settings.json").write_text(json.dumps({**of_model, **batches}))
            command = Path(peer_python(MLSERVER)).with_name("mlserver")
            return [Plan([str(command), "start", str(folder)], _env(), http_port)]
        case "kserve":
            words = [peer_python(KSERVE), "-m", "bench.server.apps.kserve_server", "--model_name", "m",
                     "--model_path", path, "--http_port", str(http_port), "--grpc_port", str(grpc_port),
                     "--configure_logging", "false", "--enable_latency_logging", "false"]  # fmt: skip
            return [Plan(words, {**_env(), "PYTHONWARNINGS": "ignore"}, http_port)]
    raise ValueError(f"there is no server '{name}'")


class Alone:
    """ONNX Runtime in a loop on the measured core."""

    def __init__(self, model: ModelFile, folder: Path) -> None:
        """Load the model; Problem if that fails."""
        folder = folder / f"{ALONE}-{model.name}"
        folder.mkdir(parents=True, exist_ok=True)
        row = folder / "row.npy"
        np.save(row, model.row)
        words = [sys.executable, "-m", "bench.server.apps.alone", str(model.path), str(row)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = Process(words, _env(), folder / "0.log", **pipes)
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("the process has no pipes")
        self._ask, self._told = self.process.stdin, self.process.stdout
        self._expect("ready")

    def _expect(self, what: str) -> str:
        line: str = self._told.readline().decode().strip()
        if not line or (what and line != what):
            raise Problem("ONNX Runtime alone did not run", f"its output is in {self.process.log}")
        return line

    def run(self, seconds: float) -> float:
        """Return how many runs a second there were in `seconds`."""
        self._ask.write(f"{seconds}\n".encode())
        self._ask.flush()
        return float(self._expect(""))


def peer_python(name: str) -> str:
    """Return the Python of a peer's environment, which is made first where it is missing."""
    return output([ROOT / "dev/venv", f"peer-{name}"], timeout=900)


def _env(*paths: Path) -> dict[str, str]:
    # Compiled code of our own sources goes to the cache: not into the checkout, and not anew at every start.
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT))),
        "PYTHONPYCACHEPREFIX": str(CACHE / "bench" / "pycache"),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONSAFEPATH": "1",
        "PROMETHEUS_DISABLE_CREATED_SERIES": "true",
    }


def _listens(port: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(POLL_SECONDS)
        else:
            return True
    return False
