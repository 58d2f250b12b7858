"""Content codings of HTTP bodies: gzip and deflate, both ways, bounded."""

from __future__ import annotations

import asyncio
import zlib

from penstock_runtime.protocol.errors import InvalidRequest, ProtocolError

# wbits as zlib wants them: gzip's wrapping, and zlib's own, which HTTP calls deflate.
_WBITS = {b"gzip": 31, b"deflate": 15}
_STEP = 2**16
# A compressed body of this size may take a millisecond; more of it is no work for the event loop.
_INLINE = 1024

# Below this an answer is sent as it is, whatever the client accepts: a packet or two either way.
MIN_COMPRESSED = 4096
_COMPRESS_INLINE = 2**16
# The quickest: time is dearer than bytes within a cluster.
_LEVEL = 1


class UnknownCoding(ProtocolError):  # noqa: N818
    """A 415, which tells what may be sent."""

    status = 415
    headers = ((b"accept-encoding", b"gzip, deflate"),)


def too_large(limit: int) -> ProtocolError:
    """Return the error for a body beyond `limit` bytes."""
    return ProtocolError(f"the body is larger than {limit} bytes", status=413)


async def decoded(body: bytes, coding: bytes, limit: int) -> list[bytes]:
    """Return the parts of `body` without its Content-Encoding `coding`, off the event loop where it is large.

    Raises ProtocolError: 415 for a coding that is not known, and what `decompress` raises.
    """
    if coding == b"identity":
        return [body]
    if coding not in _WBITS:
        raise UnknownCoding("this Content-Encoding is not supported; send gzip, deflate, or the body as it is")
    if len(body) <= _INLINE:
        return decompress(body, coding, limit)
    return await asyncio.to_thread(decompress, body, coding, limit)


def decompress(body: bytes, coding: bytes, limit: int) -> list[bytes]:
    """Return the parts of the decompressed `body`.

    Raises ProtocolError: 413 as soon as there are more than `limit` bytes, with nothing held beyond them;
    400 if it is not whole, or followed by more. (gzip may have several members. Nobody sends those over
    HTTP, and millions of empty ones would cost far more than they weigh.)
    """
    engine = zlib.decompressobj(_WBITS[coding])
    parts: list[bytes] = []
    room = limit
    try:
        for start in range(0, len(body), _STEP):
            chunk = body[start : start + _STEP]
            while True:
                part = engine.decompress(chunk, min(_STEP, room + 1))
                room -= len(part)
                if room < 0:
                    raise too_large(limit)
                parts.append(part)
                chunk = engine.unconsumed_tail
                if engine.eof or not (part or chunk):
                    break
            if engine.eof and (engine.unused_data or start + _STEP < len(body)):
                raise InvalidRequest(f"the body goes on after the end of its {coding.decode()} data")
    except zlib.error:
        raise InvalidRequest(f"the body is not {coding.decode()} data, as its Content-Encoding says") from None
    if not engine.eof:
        raise InvalidRequest(f"the body ends before its {coding.decode()} data does")
    return parts


def choose_coding(accepted: bytes) -> bytes | None:
    """Return the coding for an answer by the request's Accept-Encoding, None for none; gzip first."""
    weights: dict[bytes, float] = {}
    for item in accepted.lower().split(b","):
        name, _, parameter = item.partition(b";")
        weights[name.strip()] = _weight(parameter.strip())
    best = max(_WBITS, key=lambda coding: weights.get(coding, 0.0))
    return best if weights.get(best, 0.0) > 0 else None


def _weight(parameter: bytes) -> float:
    if not parameter.startswith(b"q="):
        return 1.0
    try:
        return float(parameter[2:])
    except ValueError:
        return 0.0


async def compressed(body: bytes, coding: bytes) -> bytes:
    """Return `body` in `coding`, off the event loop where it is large."""
    if len(body) <= _COMPRESS_INLINE:
        return compress(body, coding)
    return await asyncio.to_thread(compress, body, coding)


def compress(body: bytes, coding: bytes) -> bytes:
    """Return `body` in `coding`."""
    engine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WBITS[coding])
    return engine.compress(body) + engine.flush()
