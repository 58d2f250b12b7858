"""What is noted of one request while it is answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from penstock_runtime.server.observing.trace_context import headers_within

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from penstock_runtime.engine.job import Ran

MAX_ID = 64
MAX_PATH = 200

Attributes = dict[str, str | int]


@dataclass(eq=False, slots=True, kw_only=True)
class Observed(ABC):
    """One request, whatever it came over. Times are perf_counter() seconds.

    `trace_id` is that of the trace it belongs to, if it does; `sampled` tells whether that trace is recorded.
    `ran` is None until the model has run, which was asked for at `asked`.
    """

    started: float
    clock: int = field(default_factory=lambda: time_ns() - int(perf_counter() * 1e9))
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

    @property
    @abstractmethod
    def failed(self) -> bool:
        """Whether the server failed, which is logged whatever the share."""

    @property
    @abstractmethod
    def error(self) -> str | None:
        """What kind of error its span has, None if it has none."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What its span is called."""

    @property
    @abstractmethod
    def asked_for(self) -> Attributes:
        """What its span says from the start."""

    @property
    @abstractmethod
    def answered(self) -> Attributes:
        """What its span says at the end."""

    @abstractmethod
    def head(self) -> dict[str, Any]:
        """Return what a log line begins with: what was asked for, and how that ended."""

    def at(self, moment: float) -> int:
        """Return a time of perf_counter() as nanoseconds since the epoch."""
        return self.clock + int(moment * 1e9)

    def onward(self) -> dict[str, str]:
        """Return the trace headers with which another server goes on with its trace; none unless it has a span."""
        return {} if self.span is None else headers_within(self.span.get_span_context())

    def fields(self) -> dict[str, Any]:
        """Return what a log line says of it: never anything of its body, of headers only ids made for that."""
        line: dict[str, Any] = {
            **self.head(),
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


_ROUTE = "/v2/models/{model}/infer"


@dataclass(eq=False, slots=True)
class ObservedRequest(Observed):
    """One over HTTP. `status` 0: its client went away unanswered."""

    method: str
    path: str
    status: int = 0
    name = f"POST {_ROUTE}"

    @property
    def failed(self) -> bool:
        """Whether it was answered with 5xx."""
        return self.status >= 500

    @property
    def error(self) -> str | None:
        """The status 5xx, or that nobody waited for one."""
        if not self.status:
            return "client gone"
        return str(self.status) if self.failed else None

    @property
    def asked_for(self) -> Attributes:
        """By OpenTelemetry's conventions for HTTP."""
        return {"http.request.method": self.method, "http.route": _ROUTE, "url.path": self.path[:MAX_PATH]}

    @property
    def answered(self) -> Attributes:
        """By the same."""
        attributes: Attributes = {
            "http.request.body.size": self.bytes_in,
            "http.response.body.size": self.bytes_out,
        }
        if self.status:
            attributes["http.response.status_code"] = self.status
        return attributes

    def head(self) -> dict[str, Any]:
        """Return method, path and status."""
        return {
            "protocol": "http",
            "method": self.method[:16],
            "path": self.path[:MAX_PATH],
            "status": self.status,
        }


# The request over HTTP that the current task answers; None unless requests are observed.
OBSERVED: ContextVar[Observed | None] = ContextVar("observed", default=None)
