"""What is observed of a process, and an app whose inference requests are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

from penstock_runtime.server.http import STARTED, App, Header, Message, Receive, Scope, Send
from penstock_runtime.server.observing.access_log import AccessLog
from penstock_runtime.server.observing.observed import OBSERVED, Observed, ObservedRequest
from penstock_runtime.server.observing.options import ObservingOptions
from penstock_runtime.server.observing.setting import Logging, parse_logging
from penstock_runtime.server.observing.trace_context import read_trace_id
from penstock_runtime.server.observing.tracing import Tracing
from penstock_runtime.server.told import Told


class Observing:
    """The access log and traces of a process; while there are neither, no request meets any of this.

    `active`: whether anything is to be told of requests at the moment.
    """

    def __init__(self, options: ObservingOptions, revision: str) -> None:
        """Begin; raises SettingsError if traces are asked for and cannot be had."""
        url = options.traces_url
        self._usual = options.access_log
        self.log = AccessLog(options.access_log)
        self.tracing = None if url is None else Tracing(url, options.service, revision)
        self.told = Told("logging", parse_logging, self._apply, lambda: {"access_log": self.log.share})
        self.active = False
        self._followers: list[Callable[[bool], None]] = []
        self._apply(None)

    def _apply(self, setting: Logging | None) -> None:
        self.log.share = self._usual if setting is None else setting.access_log
        self.active = self.tracing is not None or self.log.share > 0
        for call in self._followers:
            call(self.active)

    def follow(self, call: Callable[[bool], None]) -> None:
        """Have `call` called with `active`, now and whenever it may have changed."""
        self._followers.append(call)
        call(self.active)

    def begin(self, seen: Observed, headers: Iterable[Header]) -> None:
        """Begin to observe a request that came with these headers; from any thread."""
        if self.tracing is not None:
            self.tracing.begin(seen, headers)
        else:
            seen.trace_id = read_trace_id(headers)

    def end(self, seen: Observed, moment: float) -> None:
        """Tell of a request that was over at that moment, by perf_counter(); from any thread."""
        seen.seconds = moment - seen.started
        if self.tracing is not None:
            self.tracing.end(seen)
        self.log.tell(seen)

    def close(self) -> None:
        """Tell what is still to be told, within seconds."""
        if self.tracing is not None:
            self.tracing.close()


class Observer:
    """Notes of each inference request what a log line and a trace tell of it."""

    def __init__(self, app: App, observing: Observing) -> None:
        """Put it around `app`."""
        self._app = app
        self._observing = observing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if not self._observing.active or not path.endswith("/infer"):
            await self._app(scope, receive, send)
            return
        seen = ObservedRequest(scope["method"], path, started=scope.get(STARTED) or perf_counter())

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

        self._observing.begin(seen, scope["headers"])
        OBSERVED.set(seen)  # for this request's task, which answers no other
        try:
            await self._app(scope, noting_receive, noting_send)
        finally:
            self._observing.end(seen, perf_counter())
