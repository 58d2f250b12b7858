"""Failures that a client is told about, each with the HTTP status that says whose fault it is."""

from __future__ import annotations


class ProtocolError(Exception):
    """A request that cannot be answered. `status` is the HTTP status, `message` is for the client.

    `headers`: what an answer over HTTP must carry besides.
    """

    status = 400
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, message: str, *, status: int | None = None) -> None:
        """Keep the message for the client; `status` overrides the class's own."""
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status


class InvalidRequest(ProtocolError):  # noqa: N818 - reads as what it is in `raise`
    """The request contradicts the protocol or the model's schema."""


class Overloaded(ProtocolError):  # noqa: N818
    """More requests wait than are allowed to."""

    status = 429

    def __init__(self) -> None:
        """The message is always the same."""
        super().__init__("too many requests are waiting; try again later")


class Unavailable(ProtocolError):  # noqa: N818
    """The model does not serve at the moment."""

    status = 503


class TimedOut(ProtocolError):  # noqa: N818
    """The answer did not come within the request's time."""

    status = 504


class InferenceFailed(ProtocolError):  # noqa: N818
    """The model itself failed on this input."""

    status = 500
