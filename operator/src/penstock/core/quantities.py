"""Is a manifest already what is live? The API server adds defaults and rewrites quantities; neither is a difference.

Quantities are looked for where the API has them and nowhere else: an address or a version is a text that may look
like one.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_WITH_QUANTITIES = frozenset({"resources", "sizeLimit", "divisor"})
"""Fields of a pod at or below which every scalar is a quantity."""
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?")
_FACTORS = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
_FACTORS |= {suffix: Decimal(1000) ** n for n, suffix in enumerate("kMGTPE", 1)}
_FACTORS |= {f"{suffix}i": Decimal(1024) ** n for n, suffix in enumerate("KMGTPE", 1)}


def same(wanted: Any, live: Any, *, quantities: bool = False) -> bool:
    """Everything that is wanted is live; what is live besides does not matter, except items of lists.

    `quantities`: scalars are amounts, so that `1Gi` is `1024Mi`.
    """
    match wanted, live:
        case dict(), dict():
            return all(
                same(value, live.get(key), quantities=quantities or key in _WITH_QUANTITIES)
                for key, value in wanted.items()
            )
        case list(), list():
            return len(wanted) == len(live) and all(
                same(w, x, quantities=quantities) for w, x in zip(wanted, live, strict=True)
            )
        case dict(), None:  # what is empty may be left out
            return all(same(value, None) for value in wanted.values())
        case [], None:
            return True
        case _:
            return bool(wanted == live) or (quantities and _same_amount(wanted, live))


def _same_amount(wanted: Any, live: Any) -> bool:
    a, b = _amount(wanted), _amount(live)
    return a is not None and a == b


def _amount(value: Any) -> Decimal | None:
    found = _QUANTITY.fullmatch(str(value)) if isinstance(value, (str, int, float)) else None
    if found is None:
        return None
    suffix = found[2] or ""
    return Decimal(found[1]) * (_FACTORS[suffix] if suffix in _FACTORS else Decimal(f"1{suffix}"))
