"""The trace that a caller says its request belongs to (W3C Trace Context)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
MAX_STATE = 512
# What tells the trace, as headers and as metadata.
NAMES = ("traceparent", "tracestate")


def read_trace_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id of the caller's trace in hexadecimal; "" if it names none."""
    for name, value in headers:
        if name == b"traceparent":
            match = _TRACEPARENT.fullmatch(value)
            return match[1].decode() if match is not None else ""
    return ""


def trace_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the caller's trace headers; a state that is longer than the standard asks for is left out."""
    return {
        name.decode(): value.decode("latin-1")
        for name, value in headers
        if name == b"traceparent" or (name == b"tracestate" and len(value) <= MAX_STATE)
    }


def headers_within(context: SpanContext) -> dict[str, str]:
    """Return the trace headers of requests that are made within a span."""
    state = context.trace_state.to_header()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return {"traceparent": parent, **({"tracestate": state} if state else {})}
