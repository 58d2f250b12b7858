"""grpc.health.v1: whether the server ("") and each model serves, asked for or watched."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2

from penstock_runtime.protocol.errors import Overloaded, ProtocolError, Unavailable
from penstock_runtime.server.grpc.codes import refuse
from penstock_runtime.server.grpc.models import Models

SERVICE = "grpc.health.v1.Health"
MAX_WATCHERS = 256

Response = health_pb2.HealthCheckResponse
Status = Response.ServingStatus
Send = Callable[[Response | None], None]


class Health:
    """Tells what the models say at the moment; watchers hear of it when `refresh` finds a change."""

    def __init__(self, models: Models, wake: Callable[[], None]) -> None:
        """Look at `models`. `wake` has `refresh` called soon."""
        self._models = models
        self._wake = wake
        # Guards the watchers, which come and go in several threads: to each what it is asked for, and was last told.
        self._lock = threading.Lock()
        self._watchers: dict[Send, tuple[str, int | None]] = {}
        self._closed = False

    def status(self, service: str) -> int | None:
        """Return the status of the server or a model; None if there is no such model."""
        if not service:
            return Response.SERVING if self._models.ready else Response.NOT_SERVING
        model = self._models.models.get(service)
        if model is None:
            return None
        with suppress(ProtocolError):
            model.find(None)
            return Response.NOT_SERVING if self._models.draining else Response.SERVING
        return Response.NOT_SERVING

    def check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Response:
        """Answer Check."""
        status = self.status(request.service)
        if status is None:
            refuse(context, ProtocolError(f"unknown service '{request.service[:80]}'", status=404))
        return Response(status=status)

    def watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, send: Send) -> None:
        """Answer Watch: the status now, and whenever it changes, until the client goes or the server stops."""
        with self._lock:
            if self._closed:
                refuse(context, Unavailable("the server is shutting down"))
            if len(self._watchers) >= MAX_WATCHERS:
                refuse(context, Overloaded())
            self._watchers[send] = request.service, None
        if not context.add_callback(lambda: self._forget(send)):
            self._forget(send)
        self._wake()

    def refresh(self) -> None:
        """Tell watchers what has changed. Waits for the network; always one thread calls, so that order is kept."""
        changed: list[tuple[Send, int]] = []
        with self._lock:
            for send, (service, before) in self._watchers.items():
                status = self.status(service)
                told = Response.SERVICE_UNKNOWN if status is None else status
                if told != before:
                    self._watchers[send] = service, told
                    changed.append((send, told))
        for send, told in changed:
            send(Response(status=told))

    def close(self) -> None:
        """End all watches."""
        with self._lock:
            self._closed = True
            watchers = list(self._watchers)
            self._watchers.clear()
        for send in watchers:
            send(None)

    def _forget(self, send: Send) -> None:
        with self._lock:
            self._watchers.pop(send, None)
