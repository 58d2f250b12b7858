"""What a server is told about shadowing, as JSON: parsed and checked, with messages for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock_runtime.engine.closeness import Tolerance
from penstock_runtime.server.forward.setting import (
    Address,
    check_keys,
    parse_address,
    parse_grpc_address,
    parse_share,
)
from penstock_runtime.server.settings import SettingsError

USUAL = Tolerance()


@dataclass(frozen=True, slots=True)
class Shadowing:
    """Copies of a `fraction` (0 to 1) of answered requests go to `to`.

    `to_grpc`: where the same server takes the calls that have no form over HTTP (an agent's, before TensorFlow
    Serving); None: they are not copied, and are not among those that the fraction is of. `tolerance` is for
    floating-point outputs, `tolerances` for those named, whatever numbers they are; all others must be equal.
    """

    to: Address
    fraction: float
    tolerance: Tolerance = USUAL
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    to_grpc: Address | None = None

    def describe(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "to": str(self.to),
            **({} if self.to_grpc is None else {"to_grpc": self.to_grpc.endpoint}),
            "fraction": self.fraction,
            "tolerance": self.tolerance._asdict(),
            "tolerances": {name: each._asdict() for name, each in self.tolerances.items()},
        }

    def check_outputs(self, known: Iterable[str]) -> None:
        """Raise SettingsError if a tolerance is for an output that the model does not have."""
        outputs = tuple(known)
        for name in self.tolerances:
            if name not in outputs:
                raise SettingsError(f"'tolerances' has '{name[:80]}'; the model's outputs are {', '.join(outputs)}")


def parse_shadowing(spec: Mapping[str, Any]) -> Shadowing | None:
    """Return what `spec` says; None if it is empty: copy nothing. Raises SettingsError."""
    if not spec:
        return None
    check_keys(spec, ("to", "to_grpc", "fraction", "tolerance", "tolerances"), "the setting")
    named = spec.get("tolerances", {})
    if not isinstance(named, Mapping):
        raise SettingsError("'tolerances' must be an object with a tolerance by the name of an output")
    return Shadowing(
        parse_address(spec.get("to")),
        parse_share(spec.get("fraction"), "fraction"),
        _parse_tolerance(spec.get("tolerance", {}), "'tolerance'"),
        {name: _parse_tolerance(each, f"'tolerances' of '{name[:80]}'") for name, each in named.items()},
        parse_grpc_address(spec["to_grpc"], "to_grpc") if "to_grpc" in spec else None,
    )


def _parse_tolerance(spec: object, where: str) -> Tolerance:
    if not isinstance(spec, Mapping):
        raise SettingsError(f'{where} must be an object such as {{"absolute": 1e-4, "relative": 1e-3}}')
    check_keys(spec, ("absolute", "relative"), where)
    values = {}
    for key, value in spec.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise SettingsError(f"{where}: '{key}' must be a number >= 0")
        values[key] = float(value)
    return Tolerance(**values)
