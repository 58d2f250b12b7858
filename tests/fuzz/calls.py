"""The gRPC services in this process, as the server's thread calls them, and what their answers must be like."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from grpc import StatusCode

from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.protocol.grpc.contents import FIELDS
from penstock_runtime.server.forward.relay import Forwarder
from penstock_runtime.server.grpc.codes import OK, Status
from penstock_runtime.server.grpc.core import Call, Metadata
from penstock_runtime.server.grpc.forwarding import Forwarding
from penstock_runtime.server.grpc.inference import Inferences
from penstock_runtime.server.grpc.services import SERVICE, Services
from penstock_runtime.server.grpc.shadowing import Shadowing
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.settings import Serving
from penstock_runtime.server.shadow.shadower import Shadower
from tests.fuzz.messages import INFER
from tests.fuzz.verdict import Wrong

SECONDS = 60.0
_CODES = {code.value[0]: code for code in StatusCode}
_REFUSALS = frozenset({StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.UNIMPLEMENTED})


class Ended(Call):
    """A call without a network: it has one message, and keeps how it ended."""

    __slots__ = ("_payload", "ends")

    def __init__(self, method: str, payload: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Bring `payload`."""
        self.began = time.perf_counter()
        self.method = f"/{SERVICE}/{method}".encode()
        self.deadline = math.inf
        self.metadata = ()
        self.gone = self._ended = self._opened = False
        # Those that come in one turn of the event loop are worked on in one.
        self.at_end = loop.call_soon
        self._loop = loop
        self._task = None
        self._payload: bytes | None = payload
        self.ends: asyncio.Queue[tuple[bytes | None, Status, Metadata]] = asyncio.Queue()

    def receive(self, then: Any) -> None:
        """Hand out the message, once."""
        payload, self._payload = self._payload, None
        then(payload)

    def finish(
        self,
        message: bytes | None = None,
        status: Status = OK,
        metadata: Metadata = (),
        trailing: Metadata | None = None,
    ) -> None:
        """Keep the end; a second one is no concern of the network's, but of ours."""
        self.ends.put_nowait((message, status, metadata))

    def cancel(self) -> None:
        """Nobody breaks off a call that has its message."""
        raise Wrong("the call was broken off")


class Calls:
    """The services over the models of a repository."""

    def __init__(self, repository: Repository) -> None:
        """Put them together as the listener does."""
        self._repository = repository
        limits = Serving()
        self._inferences = Inferences(
            repository,
            Forwarding(Forwarder(limits.max_body_bytes, limits.timeout)),
            Shadowing(Shadower(limits.max_body_bytes, limits.timeout)),
        )
        self._services = Services(self._inferences)

    async def call(self, method: str, payload: bytes) -> str:
        """Return the name of the code that a call ends with; raises Wrong if it is not as it must be."""
        call = Ended(method, payload, asyncio.get_running_loop())
        self._services.take(call)
        try:
            async with asyncio.timeout(SECONDS):
                message, status, metadata = await call.ends.get()
        except TimeoutError:
            raise Wrong(f"no answer within {SECONDS:g} s") from None
        # What is counted after the answer is posted to the event loop.
        self._repository.settle()
        if not call.ends.empty():
            raise Wrong("the call ended twice")
        code = _CODES[status.code]
        if code == StatusCode.OK:
            if message is None:
                raise Wrong("OK without an answer")
            if method == INFER:
                _check_answer(message, metadata)
        elif code not in _REFUSALS or message is not None or not status.details:
            raise Wrong(f"{code.name} {status.details!r}, answer {message!r}")
        return code.name


def _check_answer(message: bytes, metadata: Metadata) -> None:
    if {name for name, value in metadata if value} != {"penstock-revision", "penstock-prediction-id"}:
        raise Wrong(f"an inference without id or revision: {metadata}")
    answer = pb.ModelInferResponse.FromString(message)
    raw = list(answer.raw_output_contents)
    if raw and len(raw) != len(answer.outputs):
        raise Wrong(f"{len(raw)} raw contents for {len(answer.outputs)} outputs")
    for output in answer.outputs:
        count = math.prod(output.shape)
        if raw:
            if output.HasField("contents"):
                raise Wrong(f"output {output.name} is raw and typed")
        elif len(getattr(output.contents, FIELDS[output.datatype])) != count:
            raise Wrong(f"output {output.name} has not the {count} elements of its shape")
