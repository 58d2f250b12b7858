"""ModelInfer calls of the share, handed to the target and its answers handed back; the rest is answered here."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from penstock_runtime.protocol.errors import TimedOut
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.server.forward.message import FORWARDED, GRACE
from penstock_runtime.server.forward.relay import Forwarder, Route
from penstock_runtime.server.forward.target import NoAnswer
from penstock_runtime.server.grpc.client import MAX_CALLS, Answer
from penstock_runtime.server.grpc.core import Call, Metadata
from penstock_runtime.server.grpc.metadata import as_headers, passing
from penstock_runtime.server.grpc.target import GrpcTarget
from penstock_runtime.server.metrics import Metrics

if TYPE_CHECKING:
    from penstock_runtime.server.repository.model import Model

_MARK = FORWARDED.decode()


class Forwarding:
    """The gRPC side of `forwarder`."""

    def __init__(self, forwarder: Forwarder) -> None:
        """Have it reach targets over gRPC, too."""
        self._forwarder = forwarder
        forwarder.peer.connect_grpc = GrpcTarget

    @property
    def capacity(self) -> int:
        """How many calls may be for another server, before it is known which."""
        return MAX_CALLS if self._forwarder.active else 0

    def choose(self, model: Model, version: str, call: Call) -> Route | None:
        """Return where the call goes, None if it is answered here; from any thread. Raises ProtocolError."""
        # A version by name that is not the current one is meant: the target may not have it.
        if not self._forwarder.active or model.find(version or None) is not model.current:
            return None
        return self.route(model.name, call)

    def route(self, model: str, call: Call) -> Route | None:
        """Return where a call that may go to another revision's `model` goes; None: it stays. From any thread."""
        return self._forwarder.choose(model, as_headers(call.metadata), grpc=True)

    async def relay(
        self, route: Route, metrics: Metrics, call: Call, metadata: Metadata, payload: bytes, versioned: bool
    ) -> Answer | None:
        """Return the target's answer to `call`, whose message is `payload`; None if it is to be answered here.

        `metadata` goes along, `metrics` are the model's, `versioned` tells whether the message names a version. Raises
        TimedOut, and CancelledError if the client has gone or the server is to end.
        """
        assert route.ends.grpc is not None  # noqa: S101 - `choose` saw to it
        if versioned:
            # It numbers what lies in one revision, and the target has its own.
            payload = _without_version(payload)
        start = time.perf_counter()
        seconds = max(0.0, self._forwarder.timeout - (start - call.began)) + GRACE
        deadline = call.remaining
        try:
            # The target learns the client's deadline if that is nearer.
            answer = await route.ends.grpc.infer(
                call.method.decode(), payload, [(_MARK, "1"), *passing(metadata)], seconds, deadline
            )
        except NoAnswer as failure:
            route.note_fallback(metrics, failure.reason)
            return None
        except TimeoutError:
            # Who fails to keep the client's deadline counts that itself.
            route.note(metrics, "forwarded" if deadline < seconds else "timeout")
            raise TimedOut(f"no answer within {min(self._forwarder.timeout, deadline):g} s") from None
        except asyncio.CancelledError:
            if call.gone:
                # The target learns it from its call, and counts it.
                route.note(metrics, "forwarded")
            raise
        route.note(metrics, "forwarded")
        metrics.forward_seconds.observe(time.perf_counter() - start)
        return answer


def _without_version(payload: bytes) -> bytes:
    message = pb.ModelInferRequest.FromString(payload)
    message.ClearField("model_version")
    return message.SerializeToString()
