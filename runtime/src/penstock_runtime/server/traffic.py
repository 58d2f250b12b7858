"""What a server is told about its traffic: which requests another one answers, and which it sees copies of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from penstock_runtime.log import event
from penstock_runtime.server.config_dir import ConfigDir
from penstock_runtime.server.forward.relay import Forwarder
from penstock_runtime.server.forward.setting import parse_forwarding
from penstock_runtime.server.settings import Serving, SettingsError
from penstock_runtime.server.shadow.setting import Shadowing, parse_shadowing
from penstock_runtime.server.shadow.shadower import Shadower
from penstock_runtime.server.told import Told

logger = logging.getLogger(__name__)


class Traffic:
    """Forwarding and shadowing of one process. `told` has what they are told by name."""

    def __init__(self, limits: Serving, outputs: Callable[[], Collection[str]]) -> None:
        """Neither does anything before it is told. `outputs`: the names of the models', none if they are not known."""
        self._outputs = outputs
        self.forwarder = Forwarder(limits.max_body_bytes, limits.timeout)
        self.shadower = Shadower(limits.max_body_bytes, limits.timeout)
        self.told: dict[str, Told[Any]] = {
            "forward": Told("forward", parse_forwarding, self.forwarder.apply, self.forwarder.counts),
            "shadow": Told("shadow", self._parse_shadowing, self.shadower.apply, self.shadower.counts),
        }

    def look(self, config: ConfigDir) -> None:
        """Take notice of the mounted files: of each setting the one by its name, such as forward.json."""
        for name, told in self.told.items():
            told.look(config.document(f"{name}.json"))

    def check(self) -> None:
        """Log what could not be said while the models' outputs were not known."""
        try:
            self._check_shadowing(self.shadower.setting)
        except SettingsError as error:
            event(logger, "a tolerance is for no output of the model", level=logging.ERROR, error=str(error))

    def _parse_shadowing(self, spec: Mapping[str, Any]) -> Shadowing | None:
        return self._check_shadowing(parse_shadowing(spec))

    def _check_shadowing(self, setting: Shadowing | None) -> Shadowing | None:
        """Return `setting`; raises SettingsError if it has a tolerance for an output that no model has."""
        if setting is not None and (outputs := self._outputs()):
            setting.check_outputs(outputs)
        return setting

    def close(self) -> None:
        """Close all connections."""
        self.forwarder.close()
        self.shadower.close()
