"""Copies of answered ModelInfer calls, as requests over HTTP: so shadows and what is compared are the same for both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from penstock_runtime.protocol.request import encode_request
from penstock_runtime.server.agent.messages import InferAnswer, read_inputs
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.message import SHADOW, between, head_of
from penstock_runtime.server.forward.target import Target
from penstock_runtime.server.grpc.core import Call
from penstock_runtime.server.grpc.metadata import passing
from penstock_runtime.server.http import LENGTH_HEADER, Header
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.shadow.compare import differing
from penstock_runtime.server.shadow.setting import Shadowing
from penstock_runtime.server.shadow.shadower import INLINE_BYTES, NOT_COPIED, read_response


@dataclass(slots=True)
class CallCopy:
    """The messages of a call and of the upstream's answer; there is no `body` before `prepare`."""

    metrics: Metrics
    headers: Sequence[Header]
    payload: bytes
    answered: bytes
    body: bytes = b""
    header_length: int | None = None

    @property
    def bytes_held(self) -> int:
        """How much memory it keeps."""
        return len(self.payload) + len(self.answered)

    async def prepare(self) -> None:
        """Make the body of the message's tensors, in binary form; raises ValueError or ProtocolError if it is none."""
        if self.bytes_held <= INLINE_BYTES:
            self._write()
        else:
            await asyncio.to_thread(self._write)

    def _write(self) -> None:
        asked = InferAnswer(self.answered).specs
        self.body, self.header_length = encode_request(read_inputs(self.payload), asked, binary=True)
        self.payload = b""

    def head(self, target: Target) -> bytes:
        """Return the head of the request to `target`."""
        headers = [header for header in between(self.headers) if header[0] not in NOT_COPIED]
        headers.append((SHADOW, b"1"))
        if self.header_length is not None:
            headers.append((LENGTH_HEADER, b"%d" % self.header_length))
        url = f"/v2/models/{quote(self.metrics.model, safe='')}/infer"
        return head_of(url.encode(), target, headers, len(self.body))

    def takes_long(self, response: Response) -> bool:
        """Return whether comparing its answer with `response` is too much for the event loop."""
        return len(self.answered) + len(response.body) > INLINE_BYTES

    def differing(self, response: Response, setting: Shadowing) -> list[str]:
        """Return the names of the outputs that differ; raises ValueError or ProtocolError if either is no answer."""
        return differing(InferAnswer(self.answered).read(), read_response(response), setting)


def copy_call(metrics: Metrics, call: Call, payload: bytes, answered: bytes) -> CallCopy:
    """Return the copy of a call that has been `answered`, with what of its metadata HTTP has, too."""
    headers = [(name.encode(), value.encode()) for name, value in passing(call.metadata) if isinstance(value, str)]
    return CallCopy(metrics, headers, payload, answered)
