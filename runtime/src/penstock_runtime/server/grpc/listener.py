"""The gRPC port and its life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from penstock_runtime.server.grpc.core import Server
from penstock_runtime.server.grpc.guard import Guarded, guard
from penstock_runtime.server.grpc.health import Health
from penstock_runtime.server.http import BODY_SECONDS
from penstock_runtime.server.security.security import Security
from penstock_runtime.server.settings import ProcessSettings
from penstock_runtime.server.sockets import ListenError, bind

# For answers that are on their way, and for streams to end, once the last inference has been answered.
_FLUSH_SECONDS = 1.0
# Dead peers are found by pings. Clients may ping more often than the core allows by default, which would cut them off.
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.max_concurrent_streams", 1024),
)


class Inferring(Protocol):
    """Calls that are inference, of which `in_flight` are under way: looked at now and then, and ended."""

    @property
    def in_flight(self) -> int: ...

    def sweep(self, oldest: float) -> None: ...

    def abandon(self) -> None: ...


class Answering(Guarded, Protocol):
    """What answers all calls."""

    @property
    def inferences(self) -> Inferring: ...

    @property
    def health(self) -> Health: ...

    def abandon(self) -> None: ...


class GrpcListener:
    """One port with the gRPC services."""

    def __init__(self, services: Answering, settings: ProcessSettings, port: int, security: Security) -> None:
        """Bind at once, so that a taken port is known before a model is loaded; raises ListenError.

        `security` tells whom `services` answer.
        """
        host, shared = settings.host, settings.worker is not None
        # The core does not say why it cannot listen.
        bind(host, port, shared=shared).close()
        address = "[::]" if host is None else f"[{host}]" if ":" in host else host
        options = (
            *_OPTIONS,
            # Other workers, which are told so, listen on the port, too.
            ("grpc.so_reuseport", int(shared)),
            *_ageing(settings.drain_seconds),
            ("grpc.max_receive_message_length", settings.serving.max_body_bytes),
        )
        identity = security.grpc_identity
        self._server = Server(f"{address}:{port}", options, None if identity is None else lambda: identity.pair)
        self.port = self._server.port
        if not self.port:
            raise ListenError(f"cannot listen on {address} port {port} for gRPC")
        self._services = services
        self._inferences = services.inferences
        self._take = guard(services, security.tokens)

    def start(self) -> None:
        """Accept connections; what cannot be answered at once goes to the event loop that runs now."""
        self._server.start(self._take, self._sweep, asyncio.get_running_loop())

    @property
    def in_flight(self) -> int:
        """Inferences that are under way."""
        return self._inferences.in_flight

    def changed(self) -> None:
        """Tell those who watch the health."""
        self._services.health.changed()

    async def stop(self, deadline: float) -> bool:
        """Accept no more and finish inferences until `deadline` (loop time).

        Returns whether all were finished; the rest is answered with UNAVAILABLE.
        """
        self._server.stop()
        finished = await _until(lambda: not self._inferences.in_flight, deadline)
        if not finished:
            self._inferences.abandon()
        self._services.abandon()
        await _until(self._server.ended.is_set, asyncio.get_running_loop().time() + _FLUSH_SECONDS)
        return finished

    def close(self) -> None:
        """Let go of the port, and of calls that are left."""
        self._server.close()

    def _sweep(self) -> None:
        self._inferences.sweep(time.perf_counter() - BODY_SECONDS)


def _ageing(drain_seconds: float) -> tuple[tuple[str, int], ...]:
    """Return the option by which clients connect anew within `drain_seconds` again and again.

    A core that shuts down cancels the calls that are on their way to it. So clients must have gone by then, and the
    only way to send them elsewhere without that is to let no connection become old. The core adds a tenth either way.
    """
    if drain_seconds < 1:
        return ()
    return (("grpc.max_connection_age_ms", int(drain_seconds * 800)),)


async def _until(condition: Callable[[], bool], deadline: float) -> bool:
    loop = asyncio.get_running_loop()
    while not condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(0.01)
    return True
