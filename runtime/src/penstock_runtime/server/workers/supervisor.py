"""The process that starts the workers, speaks for them, and ends with them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from penstock_runtime.log import event
from penstock_runtime.server.listener import Listener
from penstock_runtime.server.page.app import PATHS
from penstock_runtime.server.security.security import Security
from penstock_runtime.server.settings import ProcessSettings
from penstock_runtime.server.sockets import bind
from penstock_runtime.server.workers.apps import AdminApp, MetricsApp
from penstock_runtime.server.workers.link import KEY_BYTES, Inherited, Leash

logger = logging.getLogger(__name__)

# Beyond the drain and the shutdown that a worker is given, before it is killed.
_PATIENCE_SECONDS = 5.0
_WATCH_SECONDS = 1.0


class Worker:
    """One worker, from before its start."""

    def __init__(self, settings: ProcessSettings, port: int, key: bytes) -> None:
        """Bind its sockets; raises ListenError."""
        self.data = bind(settings.host, port, shared=True)
        self.admin = bind("127.0.0.1", 0)
        self.metrics = bind("127.0.0.1", 0)
        self.leash = Leash(key)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, arguments: Sequence[str]) -> None:
        """Start the process with the sockets; what the supervisor does not need of them is its alone."""
        sockets = (self.data, self.admin, self.metrics, self.leash.theirs)
        inherited = Inherited(*(each.fileno() for each in sockets))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_runtime", *arguments, "--worker", ",".join(map(str, inherited)),
            pass_fds=inherited,
        )  # fmt: skip
        self.leash.theirs.close()

    def close_sockets(self) -> None:
        """Leave the sockets to the worker: with its end they are gone, and connections are refused, not kept."""
        for each in (self.data, self.admin, self.metrics):
            each.close()

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """Several processes that answer the same behind the same ports."""

    def __init__(self, settings: ProcessSettings, arguments: Sequence[str]) -> None:
        """Bind all ports; raises ListenError, SettingsError.

        `arguments`: the words after penstock-runtime, for the workers.
        """
        self._settings = settings
        self._arguments = arguments
        key = os.urandom(KEY_BYTES)
        self._security = security = Security(settings.security)
        self._workers: list[Worker] = []
        self._listeners: list[Listener] = []
        # Not listened on here: it keeps the port for the workers, whose own sockets gRPC makes itself.
        self._grpc = None if settings.grpc_port is None else bind(settings.host, settings.grpc_port, shared=True)
        port = settings.http_port
        for _ in range(settings.workers):
            self._workers.append(Worker(settings, port, key))
            port = _port(self._workers[0].data)
        admin = security.guard_admin(AdminApp([_port(worker.admin) for worker in self._workers]), PATHS)
        metrics = MetricsApp([_port(worker.metrics) for worker in self._workers])
        for app, name, number in ((admin, "admin", settings.admin_port), (metrics, "metrics", settings.metrics_port)):
            self._listeners.append(Listener(app, bind(settings.host, number), tls=security.tls(name)))

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until `stop` is set or a worker ends; return the exit code.

        A worker that ends by itself takes the others with it: whoever restarts the process restarts them all.
        """
        for listener in self._listeners:
            await listener.start()
        grpc_port = None if self._grpc is None else _port(self._grpc)
        told = () if grpc_port is None else ("--grpc-port", str(grpc_port))
        for worker in self._workers:
            await worker.start((*self._arguments, *told))
        event(logger, "listening", http_port=_port(self._workers[0].data), grpc_port=grpc_port,
              admin_port=self._listeners[0].port, metrics_port=self._listeners[1].port,
              workers=len(self._workers))  # fmt: skip
        ends = [asyncio.create_task(worker.process.wait()) for worker in self._workers if worker.process is not None]
        others = [asyncio.create_task(each) for each in (stop.wait(), self._begin_together(), self._watch())]
        try:
            await asyncio.wait((*ends, others[0]), return_when=asyncio.FIRST_COMPLETED)
            failed = not stop.is_set()
            if failed:
                event(logger, "a worker ended by itself", level=logging.ERROR)
            await self._end(ends)
            return max(1 if failed else 0, *(int(end.result() != 0) for end in ends))
        finally:
            for task in others:
                task.cancel()
            self._close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            self._security.refresh()

    async def _begin_together(self) -> None:
        # Else the kernel would lead requests to workers that still load, once a probe met one that does not.
        if all(await asyncio.gather(*(worker.leash.wait_loaded() for worker in self._workers))):
            for worker in self._workers:
                await worker.leash.say_all_loaded()
            event(logger, "ready", workers=len(self._workers))

    async def _end(self, ends: Sequence[asyncio.Task[int]]) -> None:
        settings = self._settings
        for worker in self._workers:
            worker.close_sockets()
            worker.signal(signal.SIGTERM)
        seconds = settings.drain_seconds + settings.shutdown_seconds + _PATIENCE_SECONDS
        _, late = await asyncio.wait(ends, timeout=seconds)
        if late:
            event(logger, "workers do not end and are killed", level=logging.ERROR, count=len(late))
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
            await asyncio.wait(late)

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            worker.leash.close()
            worker.close_sockets()
            worker.signal(signal.SIGKILL)
        if self._grpc is not None:
            self._grpc.close()


def _port(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port
