"""Inference requests that come whole, answered within the read that brought them.

ASGI takes a task, a scope, an event and a dictionary for each message: for a model of a few microseconds that is
most of the time. What has to wait or needs more than this goes on as a task of its own, or by ASGI, with the same
answers and the same counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.call import Call, Exchange
from penstock_runtime.server.forward.relay import Forwarder, Route
from penstock_runtime.server.http import Header
from penstock_runtime.server.observing.observer import Observing
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository
from penstock_runtime.server.shadow.shadower import Shadower

_MODELS = b"/v2/models/"
_INFER = b"/infer"


class Direct:
    """Answers exchanges with one model each."""

    def __init__(
        self,
        repository: Repository,
        max_body_bytes: int,
        forwarder: Forwarder | None = None,
        shadower: Shadower | None = None,
        allows: Callable[[Mapping[bytes, bytes]], bool] | None = None,
        observing: Observing | None = None,
    ) -> None:
        """Serve the models of `repository`, but for what `forwarder` chooses.

        `shadower` is offered what has been answered. `allows`: whether a request with these headers may be answered
        here; ASGI refuses the others. What is observed goes by ASGI as well.
        """
        self._observing = observing
        self.allows = allows
        self._repository = repository
        self.max_body_bytes = max_body_bytes
        # Bytes that are kept of bodies which have not come whole.
        self.arriving = 0
        self._forwarder = forwarder
        self._shadower = shadower

    def model_at(self, url: bytes) -> Model | None:
        """Return the model whose infer path `url` is; None if this request has to go by ASGI.

        That is so for another path, a version, an escaped name, while requests are observed, and while draining.
        """
        if self._observing is not None and self._observing.active:
            return None
        if not url.startswith(_MODELS) or not url.endswith(_INFER) or self._repository.draining:
            return None
        return self._repository.models.get(url[len(_MODELS) : -len(_INFER)].decode("latin-1"))

    @property
    def forwards(self) -> bool:
        """Whether any request is forwarded at the moment."""
        return self._forwarder is not None and self._forwarder.active

    def choose(self, model: Model, headers: Sequence[Header]) -> Route | None:
        """Return where a request with these headers is forwarded to, by ASGI; None if it is answered here."""
        if model.current is None or self._forwarder is None:
            return None
        return self._forwarder.choose(model.name, headers)

    def answer(self, exchange: Exchange, model: Model) -> None:
        """Answer at once, at the end of this turn of the event loop, or in a task that `exchange` starts."""
        shadower = self._shadower if self._shadower is not None and self._shadower.active else None
        Call(self._repository, model, exchange, shadower).answer(self.max_body_bytes)

    def full(self, model: Model) -> bool:
        """Return whether one more request for `model` is too many at the moment."""
        serving = model.current
        return serving is not None and 0 < serving.in_flight >= serving.executor.capacity

    def refuse(self, exchange: Exchange, model: Model, error: ProtocolError) -> None:
        """Answer `error` to an exchange whose body has not come whole."""
        Call(self._repository, model, exchange, None).refuse(error)

    def lose(self, exchange: Exchange, model: Model) -> None:
        """Count an exchange whose client has gone before its body had come whole."""
        Call(self._repository, model, exchange, None).abandon()
