"""The metrics port."""

from __future__ import annotations

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.http import Header, Receive, Scope, Send, answer, answer_error, not_found, require_method
from penstock_runtime.server.metrics import exposition
from penstock_runtime.server.repository.repository import Repository

TEXT: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class MetricsApp:
    """GET /metrics."""

    def __init__(self, repository: Repository) -> None:
        """Expose what is counted of its models."""
        self._repository = repository

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if scope["path"] != "/metrics":
                raise not_found(scope["path"])
            require_method(scope, "GET", "HEAD")
        except ProtocolError as error:
            await answer_error(send, error)
            return
        models = self._repository.models.values()
        parts = [part for model in models for part in (model.metrics.lines(), model.tally.lines())]
        await answer(send, 200, exposition(parts), content_type=TEXT)
