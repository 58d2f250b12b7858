"""Sizes and durations as people write them in a spec."""

from __future__ import annotations

import re

_SIZES = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_size(value: str | int) -> int:
    """Return bytes of a Kubernetes quantity such as "64Mi" or 1000; raises ValueError."""
    match = re.fullmatch(r"(\d+)([A-Za-z]{0,2})", str(value).strip())
    if match is None or match.group(2) not in _SIZES:
        raise ValueError(f"'{value}' is no size; write it like 64Mi or 1000000")
    return int(match.group(1)) * _SIZES[match.group(2)]


def parse_duration(value: str | float) -> float:
    """Return seconds of a duration such as "7d", "1h30m" or a plain number of seconds; raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", str(value))
    if not parts or "".join(number + unit for number, unit in parts) != str(value).strip():
        raise ValueError(f"'{value}' is no duration; write it like 30s, 10m or 7d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
