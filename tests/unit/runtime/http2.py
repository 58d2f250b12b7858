"""gRPC calls written byte by byte, as no client of good manners would write them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


def call_raw(port: int, path: str, message: bytes, metadata: Iterable[tuple[bytes, bytes]]) -> None:
    """Make a call with exactly these bytes as metadata, and wait for some answer."""
    fixed = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x"),
             (b"content-type", b"application/grpc"), (b"te", b"trailers"))  # fmt: skip
    headers = b"".join(_literal(name, value) for name, value in (*fixed, *metadata))
    body = b"\0" + struct.pack(">I", len(message)) + message
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, 1, headers)
                    + _frame(_DATA, _END_STREAM, 1, body))  # fmt: skip
        received = b""
        while b"grpc-status" not in received:
            part = raw.recv(65536)
            assert part, "the connection was closed without an answer"
            received += part


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK writes it without any compression (RFC 7541, 6.2.2)."""
    assert len(name) < 127 > len(value)
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload
