"""The models of the process, as the gRPC services ask for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.server.app import State
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.serving import Serving


@dataclass(frozen=True, eq=False, slots=True)
class Model:
    """One model that the server knows, loaded or not."""

    name: str
    metrics: Metrics
    state: State

    def find(self, version: str | None) -> Serving:
        """Return the version asked for; raises the 503 if the model is not loaded, the 404 if the version is not."""
        serving = self.state.serving
        if serving is None:
            raise Unavailable("the model is not loaded yet")
        serving.check_version(version)
        return serving


class Models:
    """All of them. Only reads, so that every thread may ask; but for the last two, which are the event loop's."""

    def __init__(self, state: State, metrics: Metrics, max_queue: int) -> None:
        """Look at `state`."""
        self._state = state
        self._max_queue = max_queue
        self.models = {state.model: Model(state.model, metrics, state)}

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self._state.ready

    @property
    def draining(self) -> bool:
        """Whether the process is about to end."""
        return self._state.draining

    @property
    def capacity(self) -> int:
        """How many calls may be under way at the moment."""
        serving = self._state.serving
        if serving is None:
            return self._max_queue
        return serving.executor.capacity - self._state.in_flight

    def known(self, name: str) -> Model:
        """Return the model of that name; raises the 404."""
        model = self.models.get(name)
        if model is None:
            known = ", ".join(f"'{each}'" for each in self.models)
            raise ProtocolError(f"unknown model '{name[:80]}'; this server has {known}", status=404)
        return model

    def only(self) -> Model | None:
        """Return the model if there is but one."""
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    def statistics(self, name: str, version: str | None) -> list[dict[str, Any]]:
        """Return the statistics extension's entries of a model, or of all ("")."""
        model = self.known(name) if name else self.models[self._state.model]
        serving = model.find(version)
        entries: list[dict[str, Any]] = self._state.statistics.describe(serving.name, serving.version, model.metrics)[
            "model_stats"
        ]
        return entries

    def index(self, only_ready: bool) -> list[dict[str, str]]:
        """Return the protocol's index of the repository."""
        serving = self._state.serving
        if serving is None:
            entry = {"name": self._state.model, "version": "", "state": "LOADING", "reason": ""}
            return [] if only_ready else [entry]
        return [{"name": serving.name, "version": serving.version, "state": "READY", "reason": ""}]
