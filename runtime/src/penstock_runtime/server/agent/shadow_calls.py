"""Copies of answered calls.

Those of ModelInfer are requests over HTTP, so shadows and what is compared are the same for both. TensorFlow Serving
has no form over HTTP that says the same as its messages, with their types and signatures: those go over gRPC.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from penstock_runtime.protocol.request import encode_request
from penstock_runtime.server.agent import tfserving
from penstock_runtime.server.agent.messages import InferAnswer, read_inputs, read_tensor_proto, read_values
from penstock_runtime.server.agent.paths import Inference
from penstock_runtime.server.agent.shadow import differing_values
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.message import SHADOW, between, head_of
from penstock_runtime.server.forward.peer import Ends
from penstock_runtime.server.forward.target import NoAnswer
from penstock_runtime.server.grpc.core import Call, Metadata
from penstock_runtime.server.grpc.metadata import passing
from penstock_runtime.server.http import LENGTH_HEADER, Header
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.shadow.compare import differing
from penstock_runtime.server.shadow.setting import Shadowing
from penstock_runtime.server.shadow.shadower import INLINE_BYTES, NOT_COPIED, Copied, read_response


@dataclass(slots=True)
class CallCopy:
    """The messages of a call and of the upstream's answer; there is no `body` before it is sent."""

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

    def _write(self) -> None:
        asked = InferAnswer(self.answered).specs
        self.body, self.header_length = encode_request(read_inputs(self.payload), asked, binary=True)
        self.payload = b""

    async def ask(self, ends: Ends, seconds: float) -> Response:
        """Send it, with a body made of the message's tensors in binary form."""
        if self.bytes_held <= INLINE_BYTES:
            self._write()
        else:
            await asyncio.to_thread(self._write)
        headers = [header for header in between(self.headers) if header[0] not in NOT_COPIED]
        headers.append((SHADOW, b"1"))
        if self.header_length is not None:
            headers.append((LENGTH_HEADER, b"%d" % self.header_length))
        url = f"/v2/models/{quote(self.metrics.model, safe='')}/infer"
        head = head_of(url.encode(), ends.http, headers, len(self.body))
        return await ends.http.exchange((head, self.body), seconds)

    def takes_long(self, response: Response) -> bool:
        """Return whether comparing its answer with `response` is too much for the event loop."""
        return len(self.answered) + len(response.body) > INLINE_BYTES

    def differing(self, response: Response, setting: Shadowing) -> list[str]:
        """Return the names of the outputs that differ; raises ValueError or ProtocolError if either is no answer."""
        return differing(InferAnswer(self.answered).read(), read_response(response), setting)


@dataclass(slots=True)
class TensorFlowCopy:
    """A call to TensorFlow Serving, which goes over gRPC as it came, and the message of the upstream's answer."""

    metrics: Metrics
    method: str
    verb: str
    metadata: Metadata
    payload: bytes
    answered: bytes

    @property
    def bytes_held(self) -> int:
        """How much memory it keeps."""
        return len(self.payload) + len(self.answered)

    async def ask(self, ends: Ends, seconds: float) -> Response:
        """Send it, with the message as it came."""
        assert ends.grpc is not None  # noqa: S101 - the shadower saw to it
        metadata = [*self.metadata, (SHADOW.decode(), "1")]
        answer = await ends.grpc.infer(self.method, self.payload, metadata, seconds, math.inf)
        if answer.message is None:
            raise NoAnswer(f"status {answer.code.name}")
        return Response(200, [], answer.message)

    def takes_long(self, response: Response) -> bool:
        """Return whether comparing its answer with `response` is too much for the event loop."""
        return len(self.answered) + len(response.body) > INLINE_BYTES

    def differing(self, response: Response, setting: Shadowing) -> list[str]:
        """Return the names of the outputs that differ; raises ValueError if either is no answer."""
        ours, theirs = (read_values(payload, self.verb) for payload in (self.answered, response.body))
        array_of = read_tensor_proto if self.verb == "predict" else tfserving.array_of
        return differing_values(ours, theirs, array_of, setting)


def copy_call(metrics: Metrics, inference: Inference, call: Call, payload: bytes, answered: bytes) -> Copied:
    """Return the copy of a call that has been `answered`; over HTTP it has what of the metadata HTTP has, too."""
    metadata = passing(call.metadata)
    if inference.protocol == "tfserving":
        return TensorFlowCopy(metrics, call.method.decode(), inference.verb, metadata, payload, answered)
    headers = [(name.encode(), value.encode()) for name, value in metadata if isinstance(value, str)]
    return CallCopy(metrics, headers, payload, answered)
