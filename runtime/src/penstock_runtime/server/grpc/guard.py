"""Calls behind tokens."""

from __future__ import annotations

from collections.abc import Callable

from penstock_runtime.server.grpc.codes import status_of
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


def guard(take: Callable[[Call], None], tokens: Tokens | None) -> Callable[[Call], None]:
    """Return what takes calls for `take`: all, or with `tokens` those that have one, and probes.

    What is refused is counted nowhere, as over HTTP.
    """
    if tokens is None:
        return take

    def take_allowed(call: Call) -> None:
        refused = None if call.method in _OPEN else refusal(tokens, _authorization(call))
        if refused is None:
            take(call)
        else:
            call.finish(status=status_of(refused))

    return take_allowed


def _authorization(call: Call) -> bytes:
    value = dict(call.metadata).get("authorization", "")
    return value.encode() if isinstance(value, str) else value
