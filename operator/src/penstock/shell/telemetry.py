"""What the operator tells of itself: metrics named after controller-runtime's, and logs with their context."""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from pythonjsonlogger.json import JsonFormatter

_CONTEXT: contextvars.ContextVar[dict[str, str]] = contextvars.ContextVar("log_context")
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_LONG = (*_SECONDS, 100, 300)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Telemetry:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        self._reconciles = Counter("penstock_reconcile", "Reconciles by result", ["result"], registry=registry)
        self._duration = Histogram(
            "penstock_reconcile_duration_seconds", "Length of a reconcile", buckets=_LONG, registry=registry
        )
        self._waited = Histogram(
            "penstock_workqueue_queue_duration_seconds",
            "How long a key waited for a worker",
            buckets=_LONG,
            registry=registry,
        )
        self._requests = Counter(
            "penstock_kube_requests",
            "Requests to the API server",
            ["verb", "kind", "code"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "penstock_kube_request_duration_seconds",
            "Requests to the API server",
            ["verb"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.depth = Gauge("penstock_workqueue_depth", "Keys that wait for a worker", registry=registry)
        self.active = Gauge("penstock_active_workers", "Reconciles that run", registry=registry)
        self.leader = Gauge("penstock_leader", "1 while this process holds the lease", registry=registry)
        self.resynced = Gauge(
            "penstock_last_resync_timestamp_seconds", "When all objects were last listed", registry=registry
        )
        self.objects = Gauge("penstock_modeldeployments", "ModelDeployments at the last listing", registry=registry)
        self.loop_lag = Gauge(
            "penstock_event_loop_lag_seconds", "How late the event loop was at its last beat", registry=registry
        )
        self.clock_skew = Gauge(
            "penstock_clock_skew_seconds", "How far the API server's clock is ahead", registry=registry
        )
        self.events_dropped = Counter(
            "penstock_events_dropped", "Kubernetes Events not written, by reason", ["reason"], registry=registry
        )

    def follow(self, waiting: Callable[[], int], active: Callable[[], int], skew: Callable[[], float]) -> None:
        """Read these at each scrape: keys that wait, reconciles that run, seconds the API server is ahead."""
        self.depth.set_function(waiting)
        self.active.set_function(active)
        self.clock_skew.set_function(skew)

    def reconciled(self, result: str, seconds: float) -> None:
        """Count one reconcile."""
        self._reconciles.labels(result).inc()
        self._duration.observe(seconds)

    def waited(self, seconds: float) -> None:
        """A key came to a worker after so long."""
        self._waited.observe(seconds)

    def kube_request(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """Count one exchange with the API server."""
        self._requests.labels(verb, kind, code).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def event_dropped(self, reason: str) -> None:
        """Count an Event that was not written."""
        self.events_dropped.labels(reason).inc()

    def exposition(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self.registry)


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Give these fields to every log line of the block, in the tasks it starts too."""
    token = _CONTEXT.set({**_CONTEXT.get({}), **fields})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


class _AddContext(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _CONTEXT.get({}).items():
            # `name` is the logger's in a record: the object's goes by its full word.
            setattr(record, "object" if name == "name" else name, value)
        return True


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        namespace, name = getattr(record, "namespace", ""), getattr(record, "object", "")
        return f"{text} [{namespace}/{name}]" if name else text


def configure_logging(log_format: str, level: str) -> None:
    """Send all logs to stderr as JSON lines or as text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_AddContext())
    if log_format == "json":
        renamed: dict[str, Any] = {"asctime": "time", "levelname": "level", "name": "logger"}
        fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
        handler.setFormatter(JsonFormatter(fields, rename_fields=renamed))
    else:
        handler.setFormatter(_Text("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # Kopf tells of every handler that succeeded; ours only put a key into a queue.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # It runs beside the main thread, where signals are not its business.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    logging.getLogger("kubernetes").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
