"""A collector of traces for tests: takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.unit.runtime.process import DEADLINE

# A trace that a caller has begun, and its span.
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Listens on loopback from its making until `close`. `hold` keeps it from answering."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.go = threading.Event()
        self.go.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                collector.go.wait(DEADLINE)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)

    def spans(self) -> list[Span]:
        """All spans so far."""
        return [span for request in list(self.requests) for resource in request.resource_spans
                for scope in resource.scope_spans for span in scope.spans]  # fmt: skip

    def wait(self, count: int) -> dict[str, Span]:
        """Return the spans by name once there are `count`."""
        end = time.monotonic() + DEADLINE
        while len(self.spans()) < count:
            assert time.monotonic() < end, self.spans()
            time.sleep(0.01)
        return {span.name: span for span in self.spans()}


def values(attributes: Iterable[KeyValue]) -> dict[str, str | int]:
    """Return attributes, strings and integers, by name."""
    return {
        item.key: item.value.int_value if item.value.HasField("int_value") else item.value.string_value
        for item in attributes
    }
