"""What a call's metadata says to us, and what of it goes on to another server."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock_runtime.server.forward.message import SHADOW
from penstock_runtime.server.grpc.core import Metadata
from penstock_runtime.server.http import Header

_SHADOW = SHADOW.decode()

# grpcio's core checks what it sends and not what it receives: a value may hold the end of a line, and so a whole header
# of another protocol.
_KEY = re.compile(r"[a-z0-9._-]+")
_TEXT = re.compile(r"[ -~]*")


def passing(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Return what the client has set, and not gRPC, and is legal."""
    return [
        (name, value)
        for name, value in metadata
        if name != "user-agent" and not name.startswith("grpc-") and is_legal(name, value)
    ]


def is_legal(name: str, value: str | bytes) -> bool:
    """Return whether it may be sent: keys of [a-z0-9._-], text of printable ASCII."""
    return _KEY.fullmatch(name) is not None and (isinstance(value, bytes) or _TEXT.fullmatch(value) is not None)


def as_headers(metadata: Iterable[tuple[str, str | bytes]]) -> list[Header]:
    """Return what HTTP would have brought."""
    return [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in metadata]


def is_copy(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Return whether the call is a copy of one that another server has answered."""
    return any(name == _SHADOW for name, _ in metadata)
