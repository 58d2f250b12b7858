"""grpc.health.v1: whether the server ("") and each model serves, asked for or watched."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from grpc_health.v1 import health_pb2

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.repository.repository import Repository

SERVICE = "grpc.health.v1.Health"

Request = health_pb2.HealthCheckRequest
Response = health_pb2.HealthCheckResponse


class Health:
    """Tells what the models say at the moment; on the event loop."""

    def __init__(self, repository: Repository) -> None:
        """Look at the models of `repository`."""
        self._repository = repository
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Have those who watch look whether it is so."""
        self._changed.set()
        self._changed = asyncio.Event()

    def check(self, request: Request) -> Response:
        """Answer Check; raises the 404 for an unknown model."""
        status = self._status(request.service)
        if status == Response.SERVICE_UNKNOWN:
            raise ProtocolError(f"unknown service '{request.service[:80]}'", status=404)
        return Response(status=status)

    async def watch(self, call: Call, request: Request) -> None:
        """Send the status now, and whenever it has changed; without end."""
        told = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                await call.send(Response(status=status).SerializeToString())
                told = status
            else:
                await changed.wait()

    def _status(self, service: str) -> Any:
        if service:
            model = self._repository.models.get(service)
            if model is None:
                return Response.SERVICE_UNKNOWN
            with suppress(ProtocolError):
                model.find(None)
                return Response.NOT_SERVING if self._repository.draining else Response.SERVING
            return Response.NOT_SERVING
        return Response.SERVING if self._repository.ready else Response.NOT_SERVING
