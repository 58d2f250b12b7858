"""Traces by OpenTelemetry, whose packages are imported only if traces are asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from penstock_runtime import __version__
from penstock_runtime.server.observing.observed import Observed
from penstock_runtime.server.observing.trace_context import trace_headers
from penstock_runtime.server.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

# Spans that wait to be sent; those that find no room are lost, no request waits for one.
MAX_WAITING = 2048
EXPORT_SECONDS = 5.0
CLOSE_SECONDS = 2.0


class Tracing:
    """Makes a span of each inference request, with one each for its wait and its run, and sends them in batches.

    A caller's decision whether its trace is recorded is respected; for requests without one, OTEL_TRACES_SAMPLER and
    OTEL_TRACES_SAMPLER_ARG decide (default: all are). Sending happens in a thread of its own; requests may begin and
    end in any thread.
    """

    def __init__(self, url: str, service: str, revision: str) -> None:
        """Send to the collector at `url`; raises SettingsError if the packages are not installed."""
        try:
            from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise _not_installed() from None
        self._server, self._internal = SpanKind.SERVER, SpanKind.INTERNAL
        self._within = set_span_in_context
        self._error = Status(StatusCode.ERROR)
        self._propagator = TraceContextTextMapPropagator()
        self._provider = _start_provider(url, service, revision)
        self._tracer = self._provider.get_tracer("penstock_runtime", __version__)

    def begin(self, seen: Observed, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin the request's span, and note which trace it is part of."""
        carried = trace_headers(headers)
        seen.span = self._tracer.start_span(
            seen.name, self._propagator.extract(carried), self._server, seen.asked_for,
            start_time=seen.at(seen.started),
        )  # fmt: skip
        context = seen.span.get_span_context()
        seen.sampled = context.trace_flags.sampled
        if seen.sampled or carried:
            seen.trace_id = f"{context.trace_id:032x}"

    def end(self, seen: Observed) -> None:
        """End the request's span, with those of its stages."""
        span = seen.span
        if span is None or not span.is_recording():
            return
        ran = seen.ran
        if ran is not None:
            began = seen.asked + ran.queued
            context = self._within(span)
            self._stage("queue", context, seen.at(seen.asked), seen.at(began))
            self._stage("inference", context, seen.at(began), seen.at(began + ran.ran), rows=ran.rows)
        span.set_attributes(seen.answered)
        span.set_attribute("penstock.revision", seen.revision)
        if (error := seen.error) is not None:
            span.set_attribute("error.type", error)
            span.set_status(self._error)
        span.end(seen.at(seen.started + seen.seconds))

    def _stage(self, name: str, context: Context, begin: int, end: int, rows: int | None = None) -> None:
        attributes = None if rows is None else {"penstock.batch.rows": rows}
        span = self._tracer.start_span(name, context, self._internal, attributes, start_time=begin)
        span.end(end)

    def close(self) -> None:
        """Send what waits, if that takes no longer than 2 s."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _start_provider(url: str, service: str, revision: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise _not_installed() from None
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    resource = Resource.create({**named, "service.version": __version__, "penstock.revision": revision})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MAX_WAITING))
    return provider


def _not_installed() -> SettingsError:
    return SettingsError(
        "observing: traces are asked for, and OpenTelemetry is not installed; "
        "install penstock[runtime,runtime-tracing], or unset OTEL_EXPORTER_OTLP_ENDPOINT and --otlp-endpoint"
    )
