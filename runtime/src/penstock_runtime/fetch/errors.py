"""Why a fetch failed, in the operator's words."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "ModelNotFound",
    "AccessDenied",
    "DigestMismatch",
    "SourceChanged",
    "SourceUnreachable",
    "InvalidModel",
    "NoSpace",
    "UnsupportedSource",
]


class FetchError(Exception):
    """A fetch that cannot succeed. `message` is for people and holds no secrets."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Keep both for the termination message."""
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message


class TransientError(FetchError):
    """A failure that trying again may cure."""

    def __init__(self, message: str) -> None:
        """Reported as SourceUnreachable if it persists."""
        super().__init__("SourceUnreachable", message)
