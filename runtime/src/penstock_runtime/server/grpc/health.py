"""grpc.health.v1: whether the server ("") and each model serves, asked for or watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from grpc_health.v1 import health_pb2

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.grpc.side import Method, answering, first

SERVICE = "grpc.health.v1.Health"

Request = health_pb2.HealthCheckRequest
Response = health_pb2.HealthCheckResponse


class Health:
    """Tells what is so at the moment; on the event loop."""

    def __init__(self, serves: Callable[[str], bool | None]) -> None:
        """`serves` tells whether a service is ready, "" being the whole server; None: there is none of that name."""
        self._serves = serves
        self._changed = asyncio.Event()

    @property
    def methods(self) -> dict[str, Method]:
        """The service's methods by their paths."""
        return {
            f"/{SERVICE}/Check": answering(Request, self.check),
            f"/{SERVICE}/Watch": Method(self.watch, lasts=True),
        }

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

    async def watch(self, call: Call) -> None:
        """Send the status now, and whenever it has changed; without end."""
        request = await first(call, Request)
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
        serves = self._serves(service)
        if serves is None:
            return Response.SERVICE_UNKNOWN
        return Response.SERVING if serves else Response.NOT_SERVING
