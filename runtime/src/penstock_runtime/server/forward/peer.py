"""Another server by both of its addresses; what is connected stays so while a new setting leads to the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock_runtime.server.forward.message import MIN_RESPONSE
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.forward.target import MAX_CONNECTIONS, Target

if TYPE_CHECKING:
    from penstock_runtime.server.grpc.target import GrpcTarget


class Ends(NamedTuple):
    """Where requests go, and where calls over gRPC do; None: nowhere."""

    http: Target
    grpc: GrpcTarget | None

    def describe(self) -> dict[str, Any]:
        """Return what can be seen of both."""
        return {
            "target": self.http.describe(),
            "target_grpc": None if self.grpc is None else self.grpc.describe(),
        }


class Peer:
    """The server that a setting leads to, of which there is one at a time. All calls come from the event loop."""

    def __init__(self, max_body_bytes: int, max_connections: int = MAX_CONNECTIONS) -> None:
        """Answers have at most `max_body_bytes`, if that is much; over HTTP it has at most `max_connections`."""
        self._max_response = max(MIN_RESPONSE, max_body_bytes)
        self._max_connections = max_connections
        self._ends: Ends | None = None
        # How to reach it over gRPC: set where calls go there, since the libraries take memory.
        self.connect_grpc: Callable[[Address, int], GrpcTarget] | None = None

    def point(self, to: Address, to_grpc: Address | None) -> Ends:
        """Lead to these addresses from now on; what is under way to others ends as it would have."""
        before = self._ends
        http = before.http if before is not None and before.http.address == to else None
        grpc = (
            before.grpc if before is not None and before.grpc is not None and before.grpc.address == to_grpc else None
        )
        if grpc is None and to_grpc is not None and self.connect_grpc is not None:
            grpc = self.connect_grpc(to_grpc, self._max_response)
        self._ends = Ends(http or Target(to, self._max_response, self._max_connections), grpc)
        _leave(before, self._ends)
        return self._ends

    def leave(self) -> None:
        """Lead nowhere; what is under way ends as it would have."""
        before, self._ends = self._ends, None
        _leave(before, None)

    def abort(self) -> None:
        """Lead nowhere, and close everything at once."""
        before, self._ends = self._ends, None
        if before is not None:
            before.http.abort()
            if before.grpc is not None:
                before.grpc.abort()


def _leave(before: Ends | None, after: Ends | None) -> None:
    if before is None:
        return
    if after is None or after.http is not before.http:
        before.http.close()
    if before.grpc is not None and (after is None or after.grpc is not before.grpc):
        before.grpc.close()
