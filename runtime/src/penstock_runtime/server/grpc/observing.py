"""ModelInfer calls that are observed, as requests over HTTP are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from grpc import StatusCode

from penstock_runtime.engine.job import Ran
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.protocol.grpc import inference_pb2 as pb
from penstock_runtime.protocol.grpc.codec import parse
from penstock_runtime.server.grpc.codes import FAILURES, OK, Status
from penstock_runtime.server.grpc.core import Call, Metadata
from penstock_runtime.server.grpc.inference import Answered, Inference, Inferences, count_answer
from penstock_runtime.server.grpc.metadata import as_headers
from penstock_runtime.server.observing.observed import MAX_PATH, Attributes, Observed
from penstock_runtime.server.observing.observer import Observing
from penstock_runtime.server.observing.trace_context import NAMES
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.serving import Serving


def observe(inferences: Inferences, observing: Observing) -> None:
    """Observe calls while there is anything to tell of them; else nothing of this file is met by any."""
    observed = partial(ObservedInference, observing)

    def follow(active: bool) -> None:
        inferences.kind = observed if active else Inference

    observing.follow(follow)


@dataclass(eq=False, slots=True)
class ObservedCall(Observed):
    """One call. `method`: /package.Service/Method.

    `code` CANCELLED: its client went away unanswered, or sent a message beyond the limit, which the core refuses.
    `model` and `version` are those that it names, until it is known which ones answer it. Bytes are those of messages.
    """

    method: str
    model: str = ""
    version: str = ""
    code: StatusCode = StatusCode.UNKNOWN

    @property
    def failed(self) -> bool:
        """Whether it has a code that stands for a failed server."""
        return self.code in FAILURES

    @property
    def error(self) -> str | None:
        """The code, of a failure."""
        return self.code.name if self.failed else None

    @property
    def name(self) -> str:
        """Service and method."""
        return self.method[1:]

    @property
    def asked_for(self) -> Attributes:
        """By OpenTelemetry's conventions for RPC."""
        service, _, method = self.name.rpartition("/")
        return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

    @property
    def answered(self) -> Attributes:
        """By the same, and what the path of a request over HTTP says."""
        number: int = self.code.value[0]
        return {
            "rpc.grpc.status_code": number,
            "penstock.model": self.model,
            "penstock.request.bytes": self.bytes_in,
            "penstock.response.bytes": self.bytes_out,
        }

    def head(self) -> dict[str, Any]:
        """Return method, model, version and code; what is not known is left out."""
        meant = {"model": self.model[:MAX_PATH], "version": self.version[:MAX_PATH]}
        return {
            "protocol": "grpc",
            "method": self.method,
            **{name: value for name, value in meant.items() if value},
            "code": self.code.name,
        }


class ObservedInference(Inference):
    """A call that is noted while it is answered, the same way as any other."""

    __slots__ = ("_observing", "_seen")

    def __init__(self, observing: Observing, inferences: Inferences, call: Call, model: Model | None) -> None:
        """Begin to observe it."""
        super().__init__(inferences, call, model)
        self._observing = observing
        self._seen = seen = ObservedCall(call.method.decode(), "" if model is None else model.name, started=call.began)
        observing.begin(seen, as_headers(call.metadata))
        if seen.sampled and not self._shadow:
            self._count = partial(_count_traced, seen)

    def _parse(self, payload: bytes) -> pb.ModelInferRequest:
        seen = self._seen
        seen.bytes_in = len(payload)
        message = parse(payload)
        seen.model, seen.version, seen.request_id = message.model_name, message.model_version, message.id
        return message

    def _passing(self) -> Metadata:
        own = self._seen.onward()
        return [*(item for item in self.call.metadata if not own or item[0] not in NAMES), *own.items()]

    def _answer_here(self, model: Model, message: pb.ModelInferRequest, begun: float, *, in_turn: bool) -> None:
        self._seen.asked = begun
        super()._answer_here(model, message, begun, in_turn=in_turn)

    def _succeed(
        self, serving: Serving, request: InferRequest, fetched: tuple[str, ...], ran: Ran, decoding: float, here: bool
    ) -> None:
        self._seen.asked += decoding
        self._seen.ran = ran._replace(outputs=[])
        super()._succeed(serving, request, fetched, ran, decoding, here)

    def _end(
        self,
        message: bytes | None = None,
        status: Status = OK,
        metadata: Metadata = (),
        trailing: Metadata | None = None,
    ) -> None:
        call, seen = self.call, self._seen
        if self._serving is not None:
            seen.version = self._serving.version
        if call.gone:
            seen.code = StatusCode.DEADLINE_EXCEEDED if call.late else StatusCode.CANCELLED
        else:
            seen.code, seen.bytes_out = status.kind, len(message or b"")
            revision = dict(metadata).get("penstock-revision", b"")
            seen.revision = revision.decode() if isinstance(revision, bytes) else revision
        # The answer does not wait for it to be told, and its client may see the end of the call before we do.
        moment = time.perf_counter()
        super()._end(message, status, metadata, trailing)
        self._observing.end(seen, moment)


def _count_traced(seen: ObservedCall, serving: Serving, answered: Answered) -> None:
    count_answer(serving, answered)
    ended = seen.at(seen.started + answered.total) / 1e9
    serving.metrics.request_seconds.exemplify(answered.total, seen.trace_id, ended)
