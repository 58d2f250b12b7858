"""Calls behind tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.security.guard import refusal
from penstock_runtime.server.security.tokens import Tokens

# What answers probes, as HEALTH of the guard does over HTTP.
_OPEN = frozenset((
    b"/grpc.health.v1.Health/Check",
    b"/grpc.health.v1.Health/Watch",
    b"/inference.GRPCInferenceService/ServerLive",
    b"/inference.GRPCInferenceService/ServerReady",
))  # fmt: skip


class Guarded(Protocol):
    """What takes calls, and answers those that nobody may make."""

    def take(self, call: Call) -> None: ...

    def refuse(self, call: Call, error: ProtocolError) -> None: ...


def guard(services: Guarded, tokens: Tokens | None) -> Callable[[Call], None]:
    """Return what takes calls for `services`: all, or with `tokens` those that have one, and probes.

    What is refused is counted nowhere, as over HTTP.
    """
    if tokens is None:
        return services.take

    def take_allowed(call: Call) -> None:
        refused = None if call.method in _OPEN else refusal(tokens, _authorization(call))
        if refused is None:
            services.take(call)
        else:
            services.refuse(call, refused)

    return take_allowed


def _authorization(call: Call) -> bytes:
    value = dict(call.metadata).get("authorization", "")
    return value.encode() if isinstance(value, str) else value
