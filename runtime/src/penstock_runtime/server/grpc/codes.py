"""What a failure is in gRPC's words."""

from __future__ import annotations

from typing import NamedTuple

from grpc import StatusCode

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.termination import shorten

_CODES = {
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
_BY_NUMBER: dict[int, StatusCode] = {code.value[0]: code for code in StatusCode}
# Where the server is to blame; the others tell of the client (OpenTelemetry's conventions for RPC).
FAILURES = frozenset((
    StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNIMPLEMENTED, StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE, StatusCode.DATA_LOSS,
))  # fmt: skip
# Details travel as a header, of which clients take 8 KiB in all; a character may take 12 bytes there.
_MAX_DETAILS = 500


class Status(NamedTuple):
    """How a call ends: the code's number, and the text for people."""

    code: int
    details: bytes

    @property
    def kind(self) -> StatusCode:
        """The code."""
        return _BY_NUMBER[self.code]


OK = Status(0, b"")


def code_of(error: ProtocolError) -> StatusCode:
    """Return the status code for `error`: its HTTP status, translated."""
    fallback = StatusCode.INVALID_ARGUMENT if error.status < 500 else StatusCode.INTERNAL
    return _CODES.get(error.status, fallback)


def status(code: StatusCode, details: str = "") -> Status:
    """Return the status with that code."""
    return Status(code.value[0], details.encode("utf-8", "replace"))


def status_of(error: ProtocolError) -> Status:
    """Return the status for `error`."""
    return status(code_of(error), shorten(error.message, _MAX_DETAILS))
