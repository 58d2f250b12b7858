"""Requests as bytes on a connection, and the answers in what comes back."""

from __future__ import annotations

import random
from urllib.parse import quote

from tests.fuzz.changes import change_bytes
from tests.fuzz.requests import Request
from tests.fuzz.server import Answer
from tests.fuzz.verdict import Wrong

_LINES = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b"HTTP/1.1", b"HTTP/9.9", b"ffffffff\r\n", b"0\r\n\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 99999999999999999999999\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Host: a\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"a" * 5000, b"%ff", b"%00", b"?", b"#", b"http://x", b"*",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n", b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\n\r\n", b"GET /v2 HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)  # fmt: skip


def serialize(rng: random.Random, request: Request, exact: bool) -> bytes:
    """Return the request as HTTP/1.1 has it, with its body whole or in chunks; `exact`: with a path as it must be."""
    path = quote(request.path.encode("utf-8", "surrogatepass"), safe="/" if exact else "/\0 ?#%")
    lines = [f"{request.method} {path} HTTP/1.1".encode(), b"Host: penstock"]
    chunked = rng.random() < 0.2
    for name, value in request.headers:
        if not (chunked and name == b"content-length"):
            lines.append(name + b": " + value)
    body = request.body
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
        at = rng.randrange(len(body) + 1)
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part) + b"0\r\n\r\n"
    return b"\r\n".join((*lines, b"", body))


def changed(rng: random.Random, sent: bytes) -> bytes:
    """Return `sent` with changes, most of them in its head."""
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        head = sent.find(b"\r\n\r\n") + 4
        if rng.random() < 0.5:
            at = rng.randrange(head + 1)
            sent = sent[:at] + rng.choice(_LINES) + sent[at:]
        elif rng.random() < 0.8:
            sent = change_bytes(rng, sent[:head], sent) + sent[head:]
        else:
            sent = change_bytes(rng, sent, sent)
    return sent


def in_pieces(rng: random.Random, sent: bytes) -> list[bytes]:
    """Return `sent` cut at random, as a network may deliver it."""
    if rng.random() < 0.5:
        return [sent]
    at, end = sorted(rng.randrange(len(sent) + 1) for _ in range(2))
    return [piece for piece in (sent[:at], sent[at:end], sent[end:]) if piece]


def answers(written: bytes, methods: list[str]) -> list[Answer]:
    """Return the responses in `written`, to requests of these methods, the last one for all others; raises Wrong."""
    found: list[Answer] = []
    at = 0
    while at < len(written):
        end = written.find(b"\r\n\r\n", at)
        if end < 0 or not written.startswith(b"HTTP/1.1 ", at):
            raise Wrong(f"this is no response: {written[at : at + 200]!r}")
        status, *lines = written[at:end].split(b"\r\n")
        code = int(status[9:12])
        at = end + 4
        if code == 100:
            continue
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        method = methods[min(len(found), len(methods) - 1)]
        length = 0 if method == "HEAD" else int(dict(headers)[b"content-length"])
        found.append((code, headers, written[at : at + length]))
        if len(found[-1][2]) != length:
            raise Wrong(f"{length} bytes announced, {len(found[-1][2])} sent")
        at += length
    return found
