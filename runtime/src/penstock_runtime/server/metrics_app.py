"""The metrics port."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.http import Header, Receive, Scope, Send, answer, answer_error, not_found, require_method
from penstock_runtime.server.measured import Measured
from penstock_runtime.server.metrics import exposition
from penstock_runtime.server.openmetrics import CONTENT_TYPE, is_wanted, openmetrics

TEXT: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_OPEN_METRICS: Header = (b"content-type", CONTENT_TYPE)


class MetricsApp:
    """GET /metrics, as Prometheus' own text format or as OpenMetrics, which the client may prefer."""

    def __init__(self, models: Mapping[str, Measured]) -> None:
        """Expose what is counted of `models`, which may change."""
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if scope["path"] != "/metrics":
                raise not_found(scope["path"])
            require_method(scope, "GET", "HEAD")
        except ProtocolError as error:
            await answer_error(send, error)
            return
        models = self._models.values()
        parts = [part for model in models for part in (model.metrics.lines(), model.tally.lines())]
        vary: Header = (b"vary", b"accept")
        if is_wanted(dict(scope["headers"]).get(b"accept", b"")):
            exemplars = {series: exemplar for model in models for series, exemplar in model.metrics.exemplars()}
            await answer(send, 200, openmetrics(parts, exemplars), (vary,), _OPEN_METRICS)
        else:
            await answer(send, 200, exposition(parts), (vary,), TEXT)
