"""How messages name what a client sent: quoted, shortened, never a crash."""

from __future__ import annotations

from collections.abc import Iterable


def quote(value: object) -> str:
    """Return a name as it stands in a message; `value` may be anything a client can put there."""
    return f"'{value[:80]}'" if type(value) is str else "without a name" if value is None else "of a wrong type"


def names(values: Iterable[object]) -> str:
    """Return a list of names, each quoted."""
    return ", ".join(f"'{value}'" for value in values)
