"""Is a manifest already what is live? The API server adds defaults and rewrites quantities; neither is a difference."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"^([0-9.]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_FACTORS = {"": Decimal(1), "m": Decimal("0.001")}
_FACTORS |= {suffix: Decimal(1000) ** n for n, suffix in enumerate("kMGTPE", 1)}
_FACTORS |= {f"{suffix}i": Decimal(1024) ** n for n, suffix in enumerate("KMGTPE", 1)}


def same(wanted: Any, live: Any) -> bool:
    """Everything that is wanted is live; what is live besides does not matter, except items of lists."""
    match wanted, live:
        case dict(), dict():
            return all(same(value, live.get(key)) for key, value in wanted.items())
        case list(), list():
            return len(wanted) == len(live) and all(same(w, x) for w, x in zip(wanted, live, strict=True))
        case {}, None:
            return True
        case [], None:
            return True
        case _:
            return bool(wanted == live) or _same_quantity(wanted, live)


def _same_quantity(wanted: Any, live: Any) -> bool:
    a, b = _amount(wanted), _amount(live)
    return a is not None and a == b


def _amount(value: Any) -> Decimal | None:
    match = _QUANTITY.match(str(value)) if isinstance(value, (str, int, float)) and value is not True else None
    return Decimal(match[1]) * _FACTORS[match[2] or ""] if match else None
