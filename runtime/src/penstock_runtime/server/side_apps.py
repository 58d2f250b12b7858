"""The apps that never face users: metrics, and the admin port's feedback."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.server.feedback.intake import Intake
from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.http import (
    Disconnected,
    Header,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    not_found,
    read_body,
    require_method,
)
from penstock_runtime.server.metrics import Metrics, exposition
from penstock_runtime.server.told import Told

# 10,000 items of an id of some 100 bytes and a label, with room to spare.
MAX_FEEDBACK_BYTES = 16 * 2**20
_TEXT: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class MetricsApp:
    """GET /metrics."""

    def __init__(self, metrics: Metrics, tally: Tally) -> None:
        """Expose both."""
        self._metrics = metrics
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if scope["path"] != "/metrics":
                raise not_found(scope["path"])
            require_method(scope, "GET", "HEAD")
        except ProtocolError as error:
            await answer_error(send, error)
            return
        body = exposition((self._metrics.lines(), self._tally.lines()))
        await answer(send, 200, body, content_type=_TEXT)


class AdminApp:
    """POST /v2/models/{model}/feedback, and GET, PUT and DELETE of what is told.

    `intake` is None until the model is loaded.
    """

    def __init__(self, model: str, told: Mapping[str, Told[Any]] = MappingProxyType({})) -> None:
        """Take feedback for `model`, and settings; `told` has them by path."""
        self._model = model
        self._path = f"/v2/models/{model}/feedback"
        self._told = told
        self.intake: Intake | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if (told := self._told.get(scope["path"])) is not None:
                result = await told.answer(scope, receive)
            else:
                result = await self._take_feedback(scope, receive)
        except Disconnected:
            return
        except ProtocolError as error:
            await answer_error(send, error)
        else:
            await answer(send, 200, orjson.dumps(result))

    async def _take_feedback(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        if scope["path"] != self._path:
            raise not_found(scope["path"])
        require_method(scope, "POST")
        if self.intake is None:
            raise Unavailable("the model is not loaded yet")
        return await self.intake.take(await read_body(dict(scope["headers"]), receive, MAX_FEEDBACK_BYTES))
