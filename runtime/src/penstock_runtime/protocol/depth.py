"""How deep JSON is nested, told from its bytes: a parser recurses, and must not be made to."""

from __future__ import annotations

import numpy as np

from penstock_runtime.protocol.errors import InvalidRequest

MAX_DEPTH = 100
_CHUNK = 2**20
_QUOTE = ord('"')
_STEPS = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


def check_depth(text: bytes) -> None:
    """Raise InvalidRequest if lists and objects in `text` nest deeper than 100; `text` need not be valid."""
    # Who opens at most 100 brackets cannot nest deeper. Almost every request ends here.
    if len(text) < 1024:
        if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
            return
    elif _opens_at_most(text, MAX_DEPTH):
        return
    if _nests_deeper(text, MAX_DEPTH):
        raise InvalidRequest(f"the JSON is nested deeper than {MAX_DEPTH} levels")


def _opens_at_most(text: bytes, most: int) -> bool:
    """Count by searching, which passes over digits many times faster than counting does."""
    for bracket in (b"[", b"{"):
        at = text.find(bracket)
        while at >= 0:
            most -= 1
            if most < 0:
                return False
            at = text.find(bracket, at + 1)
    return True


def _nests_deeper(text: bytes, most: int) -> bool:
    if b"\\" in text:
        # Escapes stand in strings only; without them every quote begins or ends one.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = quotes = 0
    for start in range(0, len(text), _CHUNK):
        chars = np.frombuffer(text, np.uint8, min(_CHUNK, len(text) - start), start)
        # Setting bits 0x26 makes 0x7F of the four brackets, and of a few others that _STEPS knows as 0.
        marks = chars[((chars | 0x26) == 0x7F) | (chars == _QUOTE)]
        if not marks.size:
            continue
        quoted = np.cumsum(marks == _QUOTE, dtype=np.int32) + quotes
        depths = np.cumsum(np.where(quoted & 1, 0, _STEPS[marks]), dtype=np.int32) + depth
        if depths.max() > most:
            return True
        depth, quotes = int(depths[-1]), int(quoted[-1]) & 1
    return False
