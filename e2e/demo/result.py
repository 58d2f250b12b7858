"""What came of a chapter, for the summary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One outcome of the eight. `answered` and `wrong` count the answers of the version that the chapter brought."""

    number: int
    title: str
    told: str
    """What was seen, in a few words with numbers."""
    seconds: float
    seen: bool
    answered: int = 0
    wrong: int = 0
    message: str = ""
    """What the ModelDeployment itself said at the end."""
