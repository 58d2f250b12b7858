"""A real server process on loopback, for tests."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[3] / "runtime" / "src"
DEADLINE = 30.0


@dataclass(frozen=True)
class Reply:
    """An HTTP response read to its end; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(port: int, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
    """Make one request; `body` is JSON unless it is bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        payload = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, payload, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


class ServerProcess:
    """`penstock-runtime serve` on ports of the system's choice; its log lines are read as they come."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock_runtime", "serve", "--host", "127.0.0.1",
             "--http-port", "0", "--admin-port", "0", "--metrics-port", "0", *arguments],
            env={**os.environ, "PYTHONPATH": str(SOURCES), **(env or {})},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.log: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.http_port = self.admin_port = self.metrics_port = 0

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def wait_log(self, message: str) -> dict[str, Any]:
        """Return the first line (not yet waited for) with `message`; fail if the process ends before."""
        end = time.monotonic() + DEADLINE
        while True:
            line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            assert line is not None, f"the server ended without {message!r}: {self.log}"
            self.log.append(line)
            if line["msg"] == message:
                return line

    def start(self) -> ServerProcess:
        """Wait until the ports are known."""
        ports = self.wait_log("listening")
        self.http_port, self.admin_port = ports["http_port"], ports["admin_port"]
        self.metrics_port = ports["metrics_port"]
        return self

    def ready(self) -> ServerProcess:
        """Wait until the model is loaded and warm."""
        self.start()
        self.wait_log("ready")
        return self

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait_exit(self) -> int:
        """Return the exit code, once all log lines have been read."""
        code = self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        while (line := self._lines.get_nowait()) is not None:
            self.log.append(line)
        return code

    def kill(self) -> None:
        """End it at once; for fixtures."""
        self._process.kill()
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)

    def get(self, path: str) -> Reply:
        return call(self.http_port, "GET", path)

    def infer(self, body: object, model: str = "m", **headers: str) -> Reply:
        return call(self.http_port, "POST", f"/v2/models/{model}/infer", body, headers)

    def feedback(self, body: object, model: str = "m") -> Reply:
        return call(self.admin_port, "POST", f"/v2/models/{model}/feedback", body)

    def metrics_text(self) -> str:
        reply = call(self.metrics_port, "GET", "/metrics")
        assert reply.status == 200
        return reply.body.decode()


def tensor(name: str, datatype: str, shape: list[int], data: object) -> dict[str, object]:
    """Return one input as JSON has it."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def iris_request(*rows: list[float], **more: object) -> dict[str, object]:
    """Return a request of rows of four numbers for the iris models."""
    return {"inputs": [tensor("X", "FP32", [len(rows), 4], list(rows))], **more}


SETOSA = [5.1, 3.5, 1.4, 0.2]
VIRGINICA = [7.7, 2.6, 6.9, 2.3]
