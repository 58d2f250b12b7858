"""One model of a server: the versions of it that are loaded, and what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from penstock_runtime.protocol.errors import ProtocolError, Unavailable
from penstock_runtime.server.measured import Measured
from penstock_runtime.server.serving import Serving

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(eq=False)
class Model(Measured):
    """A model that the server knows, loaded or not.

    `versions` rise; the highest answers where a request names none. `intake` is None until the model was loaded
    once. Without a `wanted` one the server is not ready. `state` and `reason` are what the protocol's index shows.
    """

    path: Path
    versions: dict[str, Serving] = field(default_factory=dict)
    current: Serving | None = None
    wanted: bool = False
    state: State = "UNAVAILABLE"
    reason: str = "the model was never loaded"

    def find(self, version: str | None = None) -> Serving:
        """Return the version asked for; raises the 503 if the model is not loaded, the 404 if the version is not."""
        serving = self.current
        if serving is None:
            raise Unavailable("the model is not loaded yet" if self.wanted else "the model is not loaded")
        if version is None or version == serving.version:
            return serving
        other = self.versions.get(version)
        if other is None:
            has = ", ".join(f"'{known}'" for known in self.versions)
            raise ProtocolError(f"model '{self.name}' has no version '{version[:80]}'; it has {has}", status=404)
        return other

    def exchange(self, versions: dict[str, Serving]) -> list[Serving]:
        """Serve `versions` from the next request on; return what is not served any more."""
        retired = [serving for serving in self.versions.values() if serving not in versions.values()]
        self.versions = versions
        self.current = versions[next(reversed(versions))] if versions else None
        self.metrics.model_loaded = int(bool(versions))
        return retired
