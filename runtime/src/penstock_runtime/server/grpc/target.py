"""Another server over gRPC: what its answers mean for who hands requests on, and left alone while it gives none."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from grpc import StatusCode

from penstock_runtime.log import event
from penstock_runtime.server.forward.breaker import Breaker
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.forward.target import CONNECT_SECONDS, NoAnswer
from penstock_runtime.server.grpc.client import Answer, Client, Metadata

logger = logging.getLogger(__name__)

INFER = "/inference.GRPCInferenceService/ModelInfer"
# What a target says that has not done anything; and what the core says of bytes that make no answer, but a target, too,
# whose answers then have metadata.
_REFUSED = frozenset((StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED))
_GARBLED = frozenset((StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.DATA_LOSS))
TIMEOUT = "no answer in time"
# Failures of the address, after which it is left alone; and what tells nothing of it, such as one connection's end
# where another one stands.
_FAILURES = frozenset(("unreachable", "dropped", "garbled", TIMEOUT))
_INCONCLUSIVE = frozenset(("busy", "cut off", TIMEOUT))


class GrpcTarget:
    """Where calls to infer are sent. All calls come from the event loop it was made on."""

    def __init__(self, address: Address, max_answer_bytes: int) -> None:
        """Nothing is connected before the first call."""
        self.address = address
        self._client = Client(address.endpoint, max_answer_bytes, connect_seconds=CONNECT_SECONDS)
        self._breaker = Breaker()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def describe(self) -> dict[str, Any]:
        """Return what can be seen of it: whether it is connected and whether it fails, and calls under way."""
        return {
            "connected": self._client.connected,
            "failing": self._breaker.failing,
            "calls": self._client.calls,
        }

    async def infer(self, method: str, message: bytes, metadata: Metadata, seconds: float, deadline: float) -> Answer:
        """Send what is to infer by `method`, and return the target's answer, whatever it is.

        Raises NoAnswer, as Target does, or where the target refused to do anything ("refused"); and TimeoutError
        `seconds` after the start, or `deadline` seconds, which are the client's: it may be content with too little.
        """
        begun = self._loop.time()
        if not self._breaker.admits(begun):
            raise NoAnswer("unreachable")
        connected = self._client.connected
        try:
            answer = await self._client.call(method, message, metadata, min(seconds, deadline))
        except BaseException:
            self._breaker.leave()
            raise
        finally:
            self._close_if_idle()
        reason = _reason(answer, self._client.connected)
        if reason in _FAILURES and not (reason == TIMEOUT and deadline < seconds):
            self._failed(reason, begun if connected else None)
        elif reason in _INCONCLUSIVE:
            self._breaker.leave()
        elif self._breaker.succeed(self._loop.time()):
            event(logger, "the target answers again", target=self.address.endpoint)
        if reason == TIMEOUT:
            raise TimeoutError
        if reason is not None:
            raise NoAnswer(reason)
        return answer

    def close(self) -> None:
        """Close the connections once what is under way has ended as it would have."""
        self._closed = True
        self._close_if_idle()

    def abort(self) -> None:
        """Close everything at once."""
        self._client.close()

    def _close_if_idle(self) -> None:
        if self._closed and not self._client.calls:
            self._client.close()

    def _failed(self, reason: str, begun: float | None) -> None:
        if self._breaker.fail(self._loop.time(), begun) and not self._closed:
            event(logger, "the target gives no answer; its requests are answered here", level=logging.WARNING,
                  target=self.address.endpoint, reason=reason)  # fmt: skip


def _reason(answer: Answer, connected: bool) -> str | None:
    """Return why `answer` is none of the target's, None if it is one. `connected`: the connection still stands."""
    code = answer.code
    # Where the target itself tells that its time is over, metadata comes with it.
    if code is StatusCode.DEADLINE_EXCEEDED and not answer.initial:
        return TIMEOUT
    if not answer.sent:
        return "busy" if code is StatusCode.RESOURCE_EXHAUSTED else "unreachable"
    if code is StatusCode.CANCELLED and not answer.initial:
        return "cut off" if connected else "dropped"
    if code in _REFUSED:
        dropped = code is StatusCode.UNAVAILABLE and not answer.initial and not connected
        return "dropped" if dropped else "refused"
    # Who serves no inference, or no gRPC at all.
    if code is StatusCode.UNIMPLEMENTED or (code in _GARBLED and not answer.initial):
        return "garbled"
    return None
