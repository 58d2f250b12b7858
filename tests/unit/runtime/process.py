"""Real servers on loopback, for tests: as a process, or in a thread of the tests' own."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import uvloop

from penstock_runtime.log import JsonFormatter
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.process import Process
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.settings import add_arguments, read_settings

SOURCES = Path(__file__).parents[3] / "runtime" / "src"
DEADLINE = 60.0
PORTS = ("--host", "127.0.0.1", "--http-port", "0", "--grpc-port", "0", "--admin-port", "0",
         "--metrics-port", "0")  # fmt: skip


def unloaded_repository(path: Path) -> Repository:
    """Return what a server has before the model at `path`, "m", is loaded."""
    parser = ArgumentParser()
    add_arguments(parser)
    settings = read_settings(parser.parse_args(["--model-path", str(path), "--model-name", "m"]), {})
    return Repository(settings, Keys(path / "no keys"), settings.feedback, "none")


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


class Server:
    """A server on ports of the system's choice; its log lines are read as they come."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.http_port = self.grpc_port = self.admin_port = self.metrics_port = 0

    def wait_log(self, message: str) -> dict[str, Any]:
        """Return the first line (not yet waited for) with `message`; fail if the server ends before."""
        end = time.monotonic() + DEADLINE
        while True:
            line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            assert line is not None, f"the server ended without {message!r}: {self.log}"
            self.log.append(line)
            if line["msg"] == message:
                return line

    def start(self) -> Self:
        """Wait until the ports are known."""
        ports = self.wait_log("listening")
        self.http_port, self.admin_port = ports["http_port"], ports["admin_port"]
        self.metrics_port, self.grpc_port = ports["metrics_port"], ports["grpc_port"]
        return self

    def ready(self) -> Self:
        """Wait until the model is loaded and warm."""
        self.start()
        self.wait_log("ready")
        return self

    def messages(self) -> list[str]:
        """Return the messages that have been logged and not yet waited for."""
        found: list[str] = []
        while not self.lines.empty():
            line = self.lines.get()
            found += [line["msg"]] if line else []
        return found

    @property
    def loaded(self) -> dict[str, Any]:
        """What was logged of the last load, as far as lines have been waited for."""
        return next(line for line in reversed(self.log) if line["msg"] == "loaded")

    def kill(self) -> None:
        """End it at once; for fixtures."""
        raise NotImplementedError

    def get(self, path: str) -> Reply:
        return call(self.http_port, "GET", path)

    def infer(self, body: object, model: str = "m", **headers: str) -> Reply:
        return call(self.http_port, "POST", f"/v2/models/{model}/infer", body, headers)

    def command(self, path: str, body: object = None) -> Reply:
        """POST to the repository extension on the admin port."""
        return call(self.admin_port, "POST", f"/v2/repository/{path}", body)

    def feedback(self, body: object, model: str = "m") -> Reply:
        return call(self.admin_port, "POST", f"/v2/models/{model}/feedback", body)

    def metrics_text(self) -> str:
        reply = call(self.metrics_port, "GET", "/metrics")
        assert reply.status == 200
        return reply.body.decode()


class ServerProcess(Server):
    """`penstock-runtime serve` as a process of its own."""

    started_as: tuple[str, ...] = ("serve", *PORTS)

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock_runtime", *self.started_as, *arguments],
            env={**os.environ, "PYTHONPATH": str(SOURCES), **(env or {})},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait_exit(self) -> int:
        """Return the exit code, once all log lines have been read."""
        code = self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        while (line := self.lines.get_nowait()) is not None:
            self.log.append(line)
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)


class AgentProcess(ServerProcess):
    """`penstock-runtime agent` as a process of its own."""

    started_as = ("agent", *PORTS)


class ServerThread(Server):
    """The same server in a thread of this process: for tests that are not about the process itself."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__()
        parser = ArgumentParser()
        add_arguments(parser)
        self._settings = read_settings(parser.parse_args([*PORTS, *arguments]), env or {})
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._begun.wait(DEADLINE)

    def _run(self) -> None:
        handler = _Collector(self.lines)
        logger = logging.getLogger("penstock_runtime")
        before = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            uvloop.run(self._serve())
        except asyncio.CancelledError:
            pass
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)
            self.lines.put(None)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._begun.set()
        self._process = Process(self._settings)
        await self._process.run(asyncio.Event())

    @property
    def pending(self) -> int:
        """Requests that wait for a thread or run in one."""
        return self._process._repository.pending

    def kill(self) -> None:
        if self._thread.is_alive() and self._task is not None:
            with suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(DEADLINE)


class _Collector(logging.Handler):
    """Puts the lines that the thread which made it logs into a queue."""

    def __init__(self, lines: queue.Queue[dict[str, Any] | None]) -> None:
        super().__init__()
        self._lines = lines
        self._owner = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._owner:
            self._lines.put(json.loads(JsonFormatter().format(record)))


def tensor(name: str, datatype: str, shape: list[int], data: object) -> dict[str, object]:
    """Return one input as JSON has it."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def iris_request(*rows: list[float], **more: object) -> dict[str, object]:
    """Return a request of rows of four numbers for the iris models."""
    return {"inputs": [tensor("X", "FP32", [len(rows), 4], list(rows))], **more}


SETOSA = [5.1, 3.5, 1.4, 0.2]
VIRGINICA = [7.7, 2.6, 6.9, 2.3]
