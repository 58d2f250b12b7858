"""What a failure is in gRPC's words."""

from __future__ import annotations

from typing import NoReturn

import grpc

from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.termination import shorten

_CODES = {
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# Details travel as a header, of which clients take 8 KiB in all; a character may take 12 bytes there.
_MAX_DETAILS = 500


def code_of(error: ProtocolError) -> grpc.StatusCode:
    """Return the status code for `error`: its HTTP status, translated."""
    fallback = grpc.StatusCode.INVALID_ARGUMENT if error.status < 500 else grpc.StatusCode.INTERNAL
    return _CODES.get(error.status, fallback)


def refuse(context: grpc.ServicerContext, error: ProtocolError) -> NoReturn:
    """End the call with the status that `error` is; raises what grpcio knows to be that."""
    details = shorten(error.message, _MAX_DETAILS).encode("utf-8", "replace").decode()
    context.abort(code_of(error), details)
    raise AssertionError("unreachable: abort raises")
