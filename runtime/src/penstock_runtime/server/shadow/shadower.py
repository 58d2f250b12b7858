"""Copies of answered requests, sent on and compared in the gaps between users' requests, never in their way."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from penstock_runtime.log import event, origin
from penstock_runtime.protocol.answer import Output
from penstock_runtime.protocol.binary_data import read_header_length
from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.protocol.fit import InferRequest
from penstock_runtime.protocol.request import encode_request
from penstock_runtime.protocol.schema import TensorSpec
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.message import GRACE, SHADOW, between, head_of
from penstock_runtime.server.forward.peer import Ends, Peer
from penstock_runtime.server.forward.share import Blocks
from penstock_runtime.server.forward.target import NoAnswer
from penstock_runtime.server.http import LENGTH_HEADER, Header
from penstock_runtime.server.metrics import SHADOW_RESULTS, Metrics
from penstock_runtime.server.shadow.compare import differing, read_answer
from penstock_runtime.server.shadow.setting import Shadowing

if TYPE_CHECKING:
    # An agent copies too, and has no use for ONNX Runtime.
    from penstock_runtime.engine.job import Ran

logger = logging.getLogger(__name__)

# Copies under way at once, those that wait for it, and the bytes that these may hold.
CONCURRENT = 4
MAX_WAITING = 64
MAX_WAITING_BYTES = 32 * 2**20
# An answer of this size is compared in a thread.
INLINE_BYTES = 2**17
# Outputs that are told apart in the counts.
MAX_NAMES = 64

Array = np.ndarray[Any, Any]

# Headers that say how a body is written, which a copy's may not be.
NOT_COPIED = frozenset({b"content-encoding", b"accept-encoding", LENGTH_HEADER})


class Copied(Protocol):
    """A request that has been answered, to be sent on and compared. `metrics` are its model's."""

    metrics: Metrics

    @property
    def bytes_held(self) -> int:
        """How much memory it keeps."""
        ...

    async def ask(self, ends: Ends, seconds: float) -> Response:
        """Send it and return the answer; raises NoAnswer, or TimeoutError `seconds` after the start.

        Over gRPC the message of an OK is the body of a 200. Raises ValueError or ProtocolError if it is no request.
        """
        ...

    def takes_long(self, response: Response) -> bool:
        """Return whether comparing its answer with `response` is too much for the event loop."""
        ...

    def differing(self, response: Response, setting: Shadowing) -> list[str]:
        """Return the names of the outputs that differ; raises ValueError or ProtocolError if that cannot be told."""
        ...


@dataclass(slots=True)
class Copy:
    """A request as it was run, and the outputs it was answered with.

    `metrics` are its model's, `url` is path and query as they came; the body is decompressed. If it did not come over
    HTTP there is none before it is sent, but its tensors `inputs`, and the outputs `asked` for.
    """

    metrics: Metrics
    url: bytes
    headers: Sequence[Header]
    body: bytes = b""
    header_length: int | None = None
    outputs: dict[str, Array] = field(default_factory=dict)
    inputs: Sequence[tuple[TensorSpec, Array]] = ()
    asked: Sequence[TensorSpec] = ()

    def _write(self) -> None:
        self.body, self.header_length = encode_request(self.inputs, self.asked, binary=True)
        self.inputs = ()

    def keep(self, request: InferRequest, ran: Ran) -> None:
        """Keep the outputs that the answer is made of."""
        self.outputs.update(zip(request.outputs, ran.outputs, strict=False))

    @property
    def bytes_held(self) -> int:
        """How much memory it keeps."""
        arrays = (*self.outputs.values(), *(array for _, array in self.inputs))
        return len(self.body) + sum(array.nbytes for array in arrays)

    async def ask(self, ends: Ends, seconds: float) -> Response:
        """Send it, with a body made of the tensors if there is none yet."""
        if self.asked and self.bytes_held <= INLINE_BYTES:
            self._write()
        elif self.asked:
            await asyncio.to_thread(self._write)
        headers: list[Header] = [h for h in between(self.headers) if h[0] not in NOT_COPIED]
        headers.append((SHADOW, b"1"))
        if self.header_length is not None:
            headers.append((LENGTH_HEADER, b"%d" % self.header_length))
        head = head_of(self.url, ends.http, headers, len(self.body))
        return await ends.http.exchange((head, self.body), seconds)

    def takes_long(self, response: Response) -> bool:
        """Return whether comparing its answer with `response` is too much for the event loop."""
        return len(response.body) > INLINE_BYTES

    def differing(self, response: Response, setting: Shadowing) -> list[str]:
        """Return the names of the outputs that differ; raises ValueError or ProtocolError if `response` is none."""
        ours = {name: Output(array, finite=False) for name, array in self.outputs.items()}
        return differing(ours, read_response(response), setting)


class Active(NamedTuple):
    """A setting at work."""

    setting: Shadowing
    # By model, so that each has the fraction of its own requests.
    blocks: dict[str, Blocks]
    ends: Ends
    counts: Counter[str]
    disagreements: Counter[str]
    reasons: Counter[str]


class Shadower:
    """Shadows as it is told. All calls but `choose` come from the event loop."""

    def __init__(self, max_body_bytes: int, timeout: float) -> None:
        """Answers have at most `max_body_bytes`, if that is much; a copy has `timeout` seconds."""
        self.peer = Peer(max_body_bytes, CONCURRENT)
        self._seconds = timeout + GRACE
        self._active: Active | None = None
        self._choosing = Lock()
        self._waiting: deque[tuple[Active, Copied, int]] = deque()
        self._waiting_bytes = 0
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> bool:
        """Whether there is a setting, so that answered requests must be offered."""
        return self._active is not None

    @property
    def setting(self) -> Shadowing | None:
        """What is in force."""
        return None if self._active is None else self._active.setting

    def apply(self, setting: Shadowing | None) -> None:
        """Put `setting` in force; copies that wait are dropped, uncounted."""
        self._waiting.clear()
        self._waiting_bytes = 0
        if setting is None:
            self._active = None
            self.peer.leave()
        else:
            ends = self.peer.point(setting.to, setting.to_grpc)
            self._active = Active(setting, {}, ends, Counter(seen=0), Counter(), Counter())

    def counts(self) -> dict[str, Any]:
        """Return what became of copies since the setting is in force, and the state of the target."""
        active = self._active
        if active is None:
            return {}
        return {
            "counts": {name: active.counts[name] for name in ("seen", *SHADOW_RESULTS, "dropped")},
            "disagreements": dict(active.disagreements),
            "error_reasons": dict(active.reasons),
            "waiting": len(self._waiting),
            **active.ends.describe(),
        }

    def close(self) -> None:
        """End what is under way, and close all connections."""
        for worker in self._workers:
            worker.cancel()
        self._active = None
        self.peer.abort()

    def offer(self, copy: Copied, *, grpc: bool = False) -> None:
        """Take an answered request if it is of the fraction; it is dropped where too many wait.

        `grpc`: it can only go where calls over gRPC do; where there is none, it is not among those that may be taken.
        """
        active = self.choose(copy.metrics.model, grpc=grpc)
        if active is not None:
            self.accept(active, copy)

    def choose(self, model: str, *, grpc: bool = False) -> Active | None:
        """Return what a copy of an answered request to `model` is `accept`ed for, None if it is not to be copied.

        To be asked once for each; from any thread. `grpc`: as `offer` has it.
        """
        active = self._active
        if active is None or (grpc and active.ends.grpc is None):
            return None
        with self._choosing:
            active.counts["seen"] += 1
            blocks = active.blocks.get(model) or active.blocks.setdefault(model, Blocks(active.setting.fraction))
            return active if blocks.take() else None

    def accept(self, active: Active, copy: Copied) -> None:
        """Take the copy of a request that was chosen; it is dropped where too many wait."""
        if active is not self._active:
            return
        size = copy.bytes_held
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            active.counts["dropped"] += 1
            copy.metrics.shadow_dropped += 1
            return
        self._waiting.append((active, copy, size))
        self._waiting_bytes += size
        if len(self._workers) < CONCURRENT:
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while self._waiting:
            active, copy, size = self._waiting.popleft()
            self._waiting_bytes -= size
            try:
                result = await self._compare(active, copy)
            except Exception as error:  # noqa: BLE001 - a copy must not end the worker, whatever came back
                event(logger, "a shadow's answer could not be compared", level=logging.ERROR,
                      error=type(error).__name__, where=origin(error))  # fmt: skip
                result = _error(active, "unexpected")
            active.counts[result] += 1
            copy.metrics.shadow_pairs[result] += 1

    async def _compare(self, active: Active, copy: Copied) -> str:
        try:
            response = await copy.ask(active.ends, self._seconds)
        except NoAnswer as failure:
            return _error(active, failure.reason)
        except TimeoutError:
            return _error(active, "timeout")
        except (ValueError, ProtocolError):
            return _error(active, "unreadable")
        if response.status != 200:
            return _error(active, f"status {response.status}")
        try:
            if copy.takes_long(response):
                names = await asyncio.to_thread(copy.differing, response, active.setting)
            else:
                names = copy.differing(response, active.setting)
        except (ValueError, ProtocolError):
            return _error(active, "unreadable")
        for name in names:
            if name in active.disagreements or len(active.disagreements) < MAX_NAMES:
                active.disagreements[name] += 1
        return "disagree" if names else "agree"


def _error(active: Active, reason: str) -> str:
    active.reasons[reason] += 1
    return "error"


def read_response(response: Response) -> dict[str, Output]:
    """Return all outputs in an answer of the protocol; raises ValueError or ProtocolError if it is none."""
    length = dict(response.headers).get(LENGTH_HEADER)
    return read_answer(response.body, None if length is None else read_header_length(length))
