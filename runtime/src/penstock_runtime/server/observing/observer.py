"""An app whose inference requests are observed."""

from __future__ import annotations

from time import perf_counter

from penstock_runtime.server.http import STARTED, App, Message, Receive, Scope, Send
from penstock_runtime.server.observing.access_log import AccessLog
from penstock_runtime.server.observing.observed import OBSERVED, Observed
from penstock_runtime.server.observing.options import ObservingOptions
from penstock_runtime.server.observing.trace_context import read_trace_id
from penstock_runtime.server.observing.tracing import Tracing


class Observing:
    """The access log and traces of a process; where neither is asked for, no request meets any of this."""

    def __init__(self, options: ObservingOptions, revision: str) -> None:
        """Begin; raises SettingsError if traces are asked for and cannot be had."""
        self._log = AccessLog(options.access_log) if options.access_log else None
        url = options.traces_url
        self._tracing = None if url is None else Tracing(url, options.service, revision)

    @property
    def active(self) -> bool:
        """Whether anything is to be told of requests."""
        return self._log is not None or self._tracing is not None

    def observe(self, app: App) -> App:
        """Return `app`, observed if anything is to be told of its requests."""
        return Observer(app, self._log, self._tracing) if self.active else app

    def close(self) -> None:
        """Tell what is still to be told, within seconds."""
        if self._tracing is not None:
            self._tracing.close()


class Observer:
    """Notes of each inference request what a log line and a trace tell of it."""

    def __init__(self, app: App, log: AccessLog | None, tracing: Tracing | None) -> None:
        """Put it around `app`."""
        self._app = app
        self._log = log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if not path.endswith("/infer"):
            await self._app(scope, receive, send)
            return
        seen = Observed(scope.get(STARTED) or perf_counter(), scope["method"], path)

        async def noting_receive() -> Message:
            message = await receive()
            seen.bytes_in += len(message.get("body", b""))
            return message

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                seen.revision = next((v.decode() for k, v in message["headers"] if k == b"penstock-revision"), "")
            else:
                seen.bytes_out += len(message.get("body", b""))
            await send(message)

        if self._tracing is not None:
            self._tracing.begin(seen, scope["headers"])
        else:
            seen.trace_id = read_trace_id(scope["headers"])
        OBSERVED.set(seen)  # for this request's task, which answers no other
        try:
            await self._app(scope, noting_receive, noting_send)
        finally:
            seen.seconds = perf_counter() - seen.started
            if self._tracing is not None:
                self._tracing.end(seen)
            if self._log is not None:
                self._log.tell(seen)
