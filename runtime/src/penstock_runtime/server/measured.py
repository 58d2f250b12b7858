"""A model that is measured, be it served here or by a server behind this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.feedback.intake import Intake
from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.metrics import Metrics


@dataclass(eq=False)
class Measured:
    """What is counted of a model. `intake` is None as long as there can be no feedback for it."""

    name: str
    metrics: Metrics
    tally: Tally
    intake: Intake | None = field(default=None, kw_only=True)


M = TypeVar("M", bound=Measured)


def find_model(models: Mapping[str, M], name: str) -> M:
    """Return the model of that name; raises the 404 that says which there are."""
    model = models.get(name)
    if model is None:
        known = ", ".join(f"'{each}'" for each in list(models)[:20]) or "none"
        raise ProtocolError(f"unknown model '{name[:80]}'; this server has {known}", status=404)
    return model
