"""The gRPC port and its life."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any, cast

# grpcio's core writes lines of its own to stderr, which is for our log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from penstock_runtime.server.grpc.health import Health
from penstock_runtime.server.grpc.inference import Inferences
from penstock_runtime.server.grpc.models import Models
from penstock_runtime.server.grpc.services import MAX_THREADS, THREADS, Services
from penstock_runtime.server.grpc.threads import Arrivals, Threads
from penstock_runtime.server.http import BODY_SECONDS
from penstock_runtime.server.listener import ListenError, probe

# How often watchers are told what changed and calls that are stuck are looked for, seconds.
_LOOK_SECONDS = 0.5
# For answers that are on their way, and for streams to end, once the last call has been answered.
_FLUSH_SECONDS = 1.0


# Dead peers are found by pings. Clients may ping as often as most are told to; grpcio's own default is to cut them off.
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.max_concurrent_streams", 1024),
)


class GrpcListener:
    """One port with the gRPC services."""

    def __init__(self, models: Models, host: str | None, port: int, max_message_bytes: int) -> None:
        """Bind at once, so that a taken port is known before a model is loaded; raises ListenError."""
        self._models = models
        self._arrivals = Arrivals()
        self._threads = Threads("grpc", THREADS, MAX_THREADS)
        options = (*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes))
        self._server = grpc.server(cast("Any", self._arrivals), options=options)
        self._look = threading.Event()
        self._health = Health(models, self._look.set)
        self._services: Services | None = None
        self.port = self._bind(host, port)

    def _bind(self, host: str | None, port: int) -> int:
        # grpcio does not say why it cannot listen.
        probe(host, port)
        address = "[::]" if host is None else f"[{host}]" if ":" in host else host
        try:
            return self._server.add_insecure_port(f"{address}:{port}")
        except RuntimeError:
            raise ListenError(f"cannot listen on {address} port {port} for gRPC") from None

    def start(self) -> None:
        """Accept connections. Runs that are not tiny go to the event loop that runs now."""
        inferences = Inferences(self._models, self._threads, asyncio.get_running_loop())
        self._services = Services(self._arrivals, inferences, self._threads, self._health)
        self._server.add_generic_rpc_handlers((self._services,))
        self._threads.start()
        self._services.side_threads.start()
        threading.Thread(target=self._keep_looking, args=(self._services,), name="grpc-look", daemon=True).start()
        self._server.start()

    @property
    def in_flight(self) -> int:
        """Inferences that are under way."""
        return 0 if self._services is None else len(self._services.inferences.under_way)

    def changed(self) -> None:
        """Tell those who watch the health of a change at once."""
        self._look.set()

    async def stop(self, deadline: float) -> bool:
        """Accept no more and finish calls until `deadline` (loop time).

        Returns whether all were finished; the rest is answered with UNAVAILABLE.
        """
        if self._services is None:
            return True
        loop = asyncio.get_running_loop()
        inferences = self._services.inferences
        # The core is told to cut calls off only after we have ended them ourselves.
        ended = self._server.stop(max(0.0, deadline - loop.time()) + 2 * _FLUSH_SECONDS)
        await asyncio.to_thread(self._health.close)
        finished = await _until(lambda: not inferences.under_way, deadline)
        if not finished:
            inferences.abandon()
        await _until(ended.is_set, loop.time() + _FLUSH_SECONDS)
        self.close()
        return finished

    def close(self) -> None:
        """Let go of the port, and of calls that are left."""
        services, self._services = self._services, None
        self._server.stop(None)
        if services is not None:
            self._threads.close()
            services.side_threads.close()
            services.inferences.abandon()
        self._look.set()

    def _keep_looking(self, services: Services) -> None:
        """Tell watchers, relieve threads that are stuck, and cut off calls whose message does not come."""
        while self._services is services:
            self._look.wait(_LOOK_SECONDS)
            self._look.clear()
            self._health.refresh()
            self._threads.relieve()
            services.side_threads.relieve()
            late = time.perf_counter() - BODY_SECONDS
            for call in (*services.inferences.under_way, *services.side_calls):
                if not call.received and call.began < late:
                    call.cancel()


async def _until(condition: Callable[[], bool], deadline: float) -> bool:
    loop = asyncio.get_running_loop()
    while not condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(0.01)
    return True
