"""What a server is told of logging while it runs, as JSON: parsed and checked, with messages for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_runtime.server.forward.setting import check_keys, parse_share


@dataclass(frozen=True, slots=True)
class Logging:
    """`access_log`: the share of inference requests that are logged, 0 to 1, instead of the command line's."""

    access_log: float

    def describe(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"access_log": self.access_log}


def parse_logging(spec: Mapping[str, Any]) -> Logging | None:
    """Return what `spec` says; None if it is empty: as the command line says. Raises SettingsError."""
    if not spec:
        return None
    check_keys(spec, ("access_log",), "the setting")
    return Logging(parse_share(spec.get("access_log"), "access_log"))
