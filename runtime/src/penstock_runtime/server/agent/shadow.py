"""Copies of what an upstream has answered: sent on as they came, and compared by what both answers say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock_runtime.protocol.answer import Output
from penstock_runtime.server.agent import tfserving
from penstock_runtime.server.agent.paths import Inference
from penstock_runtime.server.compression import UnknownCoding, decompress
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.message import MIN_RESPONSE, SHADOW, between, head_of
from penstock_runtime.server.forward.peer import Ends
from penstock_runtime.server.http import Header
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.shadow.compare import differing
from penstock_runtime.server.shadow.setting import Shadowing
from penstock_runtime.server.shadow.shadower import INLINE_BYTES, read_response

Array = np.ndarray[Any, Any]

_IDENTITY = b"identity"


@dataclass(slots=True)
class Copy:
    """A request as it came, and what the upstream answered to it. `url` is path and query."""

    metrics: Metrics
    inference: Inference
    url: bytes
    headers: Sequence[Header]
    body: bytes
    answered: Response

    @property
    def bytes_held(self) -> int:
        """How much memory it keeps."""
        return len(self.body) + len(self.answered.body)

    async def ask(self, ends: Ends, seconds: float) -> Response:
        """Send it, with the body as it came."""
        headers = [header for header in between(self.headers) if header[0] != b"accept-encoding"]
        head = head_of(self.url, ends.http, [*headers, (SHADOW, b"1")], len(self.body))
        return await ends.http.exchange((head, self.body), seconds)

    def takes_long(self, response: Response) -> bool:
        """Return whether comparing its answer with `response` is too much for the event loop."""
        answers = (self.answered, response)
        # What is compressed tells only later how much it is.
        return sum(len(each.body) for each in answers) > INLINE_BYTES or any(map(_coding, answers))

    def differing(self, response: Response, setting: Shadowing) -> list[str]:
        """Return the names of the outputs that differ; raises ValueError or ProtocolError if either is no answer."""
        ours, theirs = map(_plain, (self.answered, response))
        if self.inference.protocol == "oip":
            return differing(read_response(ours), read_response(theirs), setting)
        verb = self.inference.verb
        mine, other = (tfserving.read_columns(each.body, verb).values for each in (ours, theirs))
        return differing_values(mine, other, tfserving.array_of, setting)


def differing_values(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], array_of: Callable[[Any], Array], setting: Shadowing
) -> list[str]:
    """Return the names of our outputs that are not in `theirs`, or not the same within the tolerances.

    `array_of` returns the tensor that a value is; those of which it raises ValueError must be equal.
    """
    return [
        name for name, value in ours.items()
        if name not in theirs or _differs(name, value, theirs[name], array_of, setting)
    ]  # fmt: skip


def _differs(name: str, ours: Any, theirs: Any, array_of: Callable[[Any], Array], setting: Shadowing) -> bool:
    if ours == theirs:
        # As most do; what a tolerance cannot be for is told so, too.
        return False
    try:
        one, other = ({name: Output(array_of(value), finite=False)} for value in (ours, theirs))
    except ValueError:
        # Neither numbers nor texts, or not of one kind.
        return True
    return bool(differing(one, other, setting))


def _coding(response: Response) -> bytes | None:
    coding = dict(response.headers).get(b"content-encoding", _IDENTITY).lower()
    return None if coding == _IDENTITY else coding


def _plain(response: Response) -> Response:
    """Return `response` without its Content-Encoding; raises ProtocolError."""
    coding = _coding(response)
    if coding is None:
        return response
    if coding not in (b"gzip", b"deflate"):
        raise UnknownCoding("the answer's Content-Encoding is not known")
    return response._replace(body=b"".join(decompress(response.body, coding, MIN_RESPONSE)))
