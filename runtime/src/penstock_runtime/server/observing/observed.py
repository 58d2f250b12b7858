"""What is noted of one request while it is answered."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from penstock_runtime.engine.job import Ran

MAX_ID = 64


@dataclass(eq=False, slots=True)
class Observed:
    """One request. Times are perf_counter() seconds; `status` 0: its client went away unanswered.

    `trace_id` is that of the trace it belongs to, if it does; `sampled` tells whether that trace is recorded.
    `ran` is None until the model has run, which was asked for at `asked`.
    """

    started: float
    method: str
    path: str
    clock: int = field(default_factory=lambda: time_ns() - int(perf_counter() * 1e9))
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    revision: str = ""
    request_id: str | None = None
    trace_id: str = ""
    sampled: bool = False
    span: Span | None = None
    asked: float = 0.0
    ran: Ran | None = None

    def at(self, moment: float) -> int:
        """Return a time of perf_counter() as nanoseconds since the epoch."""
        return self.clock + int(moment * 1e9)

    def fields(self) -> dict[str, Any]:
        """Return what a log line says of it: never anything of its body, of headers only ids made for that."""
        line: dict[str, Any] = {
            "method": self.method[:16],
            "path": self.path[:200],
            "status": self.status,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "seconds": round(self.seconds, 6),
        }
        if self.ran is not None:
            line["queue_seconds"] = round(self.ran.queued, 6)
            line["inference_seconds"] = round(self.ran.ran, 6)
        if self.revision:
            line["revision"] = self.revision
        if self.request_id and len(self.request_id) <= MAX_ID:
            line["id"] = self.request_id
        if self.trace_id:
            line["trace_id"] = self.trace_id
        return line


# The request that the current task answers; None unless requests are observed.
OBSERVED: ContextVar[Observed | None] = ContextVar("observed", default=None)
