"""Requests of the share, handed to the target and its answers handed back; whatever fails is answered here."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

from penstock_runtime.protocol.errors import TimedOut
from penstock_runtime.server.forward.message import (
    FORWARDED,
    GRACE,
    SHADOW,
    between,
    hand_back,
    head_of,
    url_of,
)
from penstock_runtime.server.forward.peer import Ends, Peer
from penstock_runtime.server.forward.setting import Forwarding
from penstock_runtime.server.forward.share import Blocks, Sticky
from penstock_runtime.server.forward.target import NoAnswer
from penstock_runtime.server.http import (
    GONE,
    ROUTE,
    STARTED,
    Header,
    Message,
    Receive,
    Scope,
    Send,
    answer_error,
    read_body,
)
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.observing.observed import OBSERVED
from penstock_runtime.server.observing.trace_context import NAMES

# Answers that say there is none: too many requests, a proxy that got none, a server that does not serve.
_NO_ANSWER = frozenset((429, 502, 503))
_TRACE = frozenset(name.encode() for name in NAMES)


class Route(NamedTuple):
    """A setting at work, and where the requests go that it chooses; those over gRPC may have to stay."""

    setting: Forwarding
    header: bytes | None
    # By model, so that each has the share of its own requests, whatever these come over.
    blocks: dict[str, Blocks]
    sticky: Sticky
    ends: Ends
    counts: Counter[str]

    def note(self, metrics: Metrics, result: str) -> None:
        """Count what became of a request; `metrics` are its model's."""
        self.counts[result] += 1
        metrics.forwarded[result] += 1

    def note_fallback(self, metrics: Metrics, reason: str) -> None:
        """Count a request that the target gave no answer to."""
        self.note(metrics, "fallback")
        self.counts[reason] += 1


class Forwarder:
    """Forwards as it is told. All calls but `choose` come from the event loop.

    A request is chosen by `choose`, whatever it comes over; `relay` is for those over HTTP.
    """

    def __init__(self, max_body_bytes: int, timeout: float) -> None:
        """Bodies have at most `max_body_bytes`, a request `timeout` seconds."""
        self._max_body_bytes = max_body_bytes
        self.peer = Peer(max_body_bytes)
        self.timeout = timeout
        self._route: Route | None = None
        self._choosing = Lock()
        # Whether a setting is in force; asked for each request.
        self.active = False

    def apply(self, setting: Forwarding | None) -> None:
        """Put `setting` in force for all requests that begin from now on; None: forward nothing."""
        if setting is None:
            self._route = None
            self.peer.leave()
        else:
            header = None if setting.header is None else setting.header.encode()
            sticky = Sticky(setting.share, setting.salt)
            ends = self.peer.point(setting.to, setting.to_grpc)
            # Seen from two threads, which must not find the dictionary growing.
            self._route = Route(setting, header, {}, sticky, ends, Counter(seen=0))
        self.active = self._route is not None

    def counts(self) -> dict[str, Any]:
        """Return what became of requests since the setting is in force, and the state of the target."""
        route = self._route
        if route is None:
            return {}
        names = ("seen", "forwarded", "fallback", "timeout")
        reasons = {name: count for name, count in route.counts.items() if name not in names}
        return {
            "counts": {name: route.counts[name] for name in names},
            "fallback_reasons": reasons,
            **route.ends.describe(),
        }

    def close(self) -> None:
        """Close all connections."""
        self._route = None
        self.active = False
        self.peer.abort()

    def choose(self, model: str, headers: Sequence[Header], *, grpc: bool = False) -> Route | None:
        """Return where a request to `model` with these headers goes, None if it is answered here; from any thread.

        `grpc`: it came over gRPC, and can only go where that leads.
        """
        route = self._route
        if route is None or (grpc and route.ends.grpc is None):
            return None
        value: bytes | None = None
        for name, each in headers:
            if name == route.header:
                value = each
            elif name in (FORWARDED, SHADOW):
                return None
        with self._choosing:
            route.counts["seen"] += 1
            if value is not None:
                taken = route.sticky.take(value)
            else:
                blocks = route.blocks.get(model) or route.blocks.setdefault(model, Blocks(route.setting.share))
                taken = blocks.take()
        return route if taken else None

    async def relay(
        self, metrics: Metrics, scope: Scope, receive: Receive, send: Send, extra: Sequence[Header]
    ) -> Receive | None:
        """Answer the request by the target and return None; or return what its body is to be received by here.

        `metrics` are the model's, `extra` headers of the answer. Raises what `read_body` raises, and
        CancelledError if the server is to end.
        """
        headers: list[Header] = scope["headers"]
        route = scope[ROUTE] if ROUTE in scope else self.choose(metrics.model, headers)
        if route is None:
            return receive
        # Without its Content-Encoding: the body is handed on as it came.
        length = {name: value for name, value in headers if name == b"content-length"}
        body = await read_body(length, receive, self._max_body_bytes)
        start = time.perf_counter()
        seconds = max(0.0, self.timeout - (start - scope.get(STARTED, start))) + GRACE
        try:
            head = head_of(url_of(scope), route.ends.http, [(FORWARDED, b"1"), *_passing(headers)], len(body))
            response = await route.ends.http.exchange((head, body), seconds)
        except NoAnswer as failure:
            return _fall_back(route, metrics, failure.reason, body, receive)
        except TimeoutError:
            route.note(metrics, "timeout")
            await answer_error(send, TimedOut(f"no answer within {self.timeout:g} s"), extra)
            return None
        except asyncio.CancelledError:
            if GONE not in scope:
                raise
            # The target learns it from its connection, and counts it.
            route.note(metrics, "forwarded")
            return None
        if response.status in _NO_ANSWER:
            return _fall_back(route, metrics, "refused", body, receive)
        route.note(metrics, "forwarded")
        metrics.forward_seconds.observe(time.perf_counter() - start)
        await hand_back(send, response, extra)
        return None


def _passing(headers: Sequence[Header]) -> list[Header]:
    """Return what goes along: the trace by this request's span, if it has one."""
    seen = OBSERVED.get()
    own = {} if seen is None else seen.onward()
    passing = between(headers)
    if not own:
        return passing
    passing = [header for header in passing if header[0] not in _TRACE]
    return passing + [(name.encode(), value.encode()) for name, value in own.items()]


def _fall_back(route: Route, metrics: Metrics, reason: str, body: bytes, receive: Receive) -> Receive:
    route.note_fallback(metrics, reason)
    return _again(body, receive)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with the whole body, which has been read already."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
