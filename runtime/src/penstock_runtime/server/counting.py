"""One request to a model's infer path, counted whatever becomes of it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, Protocol

from penstock_runtime.protocol.errors import Overloaded, ProtocolError
from penstock_runtime.server.http import Disconnected, shutting_down, unexpected
from penstock_runtime.server.measured import M
from penstock_runtime.server.metrics import outcome_of
from penstock_runtime.server.observing.observed import OBSERVED

if TYPE_CHECKING:
    from penstock_runtime.server.repository.model import Model
    from penstock_runtime.server.serving import Serving


class InFlight(Protocol):
    """Who knows how many requests are under way."""

    in_flight: int


class Counted(Generic[M]):
    """A request from its arrival to its end. Exactly one of the outcomes is counted, by `end`.

    `outcome` None: another server has answered and counted it, and this revision is not judged by what another
    one says.
    """

    __slots__ = ("_process", "model", "outcome", "serving", "shadow", "start")

    def __init__(self, process: InFlight, model: M, start: float, *, shadow: bool = False) -> None:
        """`start`: perf_counter() when it came. `shadow`: it is a copy, counted apart from users' requests."""
        self._process = process
        self.model = model
        self.serving: Serving | None = None
        self.start = start
        self.shadow = shadow
        self.outcome: str | None = "server_error"
        process.in_flight += 1

    def admit(self: Counted[Model], version: str | None) -> Serving:
        """Return what answers it; raises ProtocolError: 404, 503, or 429 where too many are under way."""
        current = self.model.current
        serving = current if version is None and current is not None else self.model.find(version)
        self.serving = serving
        serving.in_flight += 1
        if serving.in_flight > 1 and serving.in_flight > serving.executor.capacity:
            raise Overloaded
        return serving

    def explain(self, error: Exception) -> ProtocolError:
        """Return what its client is told of `error`, and keep the outcome."""
        if isinstance(error, ProtocolError):
            self.outcome = outcome_of(error.status)
            return error
        return unexpected(error)

    def fail(self, error: Exception | asyncio.CancelledError, *, gone: bool) -> ProtocolError | None:
        """Return what its client is told of `error`, None if nobody waits for it; and keep the outcome.

        `gone`: the client went, which is why the request was cancelled if it was.
        """
        if isinstance(error, asyncio.CancelledError):
            # The time to finish is over: better an answer that says so than a connection that breaks.
            error = Disconnected() if gone else shutting_down()
        if isinstance(error, Disconnected):
            self.outcome = "client_error"
            return None
        return self.explain(error)

    def leave(self) -> float:
        """Be under way no more, without being counted; return the seconds since it came."""
        self._process.in_flight -= 1
        if self.serving is not None:
            self.serving.in_flight -= 1
        return time.perf_counter() - self.start

    def end(self) -> None:
        """Count it."""
        seconds = self.leave()
        serving, metrics = self.serving, self.model.metrics
        if self.outcome is None:
            return
        if self.shadow:
            metrics.shadow_requests[self.outcome] += 1
            return
        metrics.requests[self.outcome] += 1
        if self.outcome == "ok":
            metrics.request_seconds.observe(seconds)
            if (seen := OBSERVED.get()) is not None and seen.sampled:
                metrics.request_seconds.exemplify(seconds, seen.trace_id, time.time())
        if serving is not None:
            serving.statistics.ended(seconds, self.outcome == "ok")
