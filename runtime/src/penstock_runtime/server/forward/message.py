"""Requests and answers as they pass from one server to another: which headers go along, and marks of our own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.target import Target
from penstock_runtime.server.http import Header, Scope, Send

# Marks of requests that their receiver answers itself, whatever it is told.
FORWARDED = b"penstock-forwarded"
SHADOW = b"penstock-shadow"
# Seconds that the target has beyond the request's time: a target that lives says itself, and counts, that it is up.
GRACE = 1.0
# An answer may well be larger than any request: at least this many bytes are taken.
MIN_RESPONSE = 64 * 2**20

# What is between two neighbours and no further (RFC 9110, 7.6.1), and what is written anew.
_OWN = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"host", b"expect",
})  # fmt: skip
_VERSION = re.compile(rb"/versions/[^/?]+(?=/infer(?:\?|$))")


def between(headers: Sequence[Header]) -> list[Header]:
    """Return the headers that are for both ends: not those of one connection, nor those that Connection names."""
    own: frozenset[bytes] = _OWN
    for name, value in headers:
        if name == b"connection":
            own = own.union(item.strip().lower() for item in value.split(b","))
    return [header for header in headers if header[0] not in own]


def url_of(scope: Scope) -> bytes:
    """Return path and query as they came."""
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path + b"?" + query if query else path


def head_of(url: bytes, target: Target, headers: Sequence[Header], length: int) -> bytes:
    """Return the head of a POST to the infer path `url` of `target`, with `headers` and a body of `length` bytes.

    A version in the path is left out: it numbers what lies in one revision, and the target has its own.
    """
    return request_head(b"POST", _VERSION.sub(b"", url, count=1), target, headers, length)


def request_head(method: bytes, url: bytes, target: Target, headers: Iterable[Header], length: int) -> bytes:
    """Return the head of any request to `target`, with `headers` and a body of `length` bytes."""
    start = (method, url, target.authority, length)
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\n" % start]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"\r\n")
    return b"".join(lines)


async def hand_back(
    send: Send, response: Response, extra: Iterable[Header], leave_out: frozenset[bytes] = frozenset()
) -> None:
    """Send `response` on byte for byte, with the headers `extra`, and without those named in `leave_out`."""
    headers = [header for header in between(response.headers) if header[0] not in leave_out]
    if response.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(response.body)))
    headers += extra
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
