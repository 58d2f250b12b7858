"""Protobuf's wire format, as far as a look into an ONNX file needs it.

A reader of our own, because what there is reads too much: `onnx` is not in the image, and it and `google.protobuf`
parse a file whole, so that a model of 2 GB takes 2 GB and more before anything of it can be refused. Here a
message is walked field by field over a memory map; what nobody asks for (weights, above all) is stepped over, and
its pages are never touched. Nothing is allocated by what a file claims, and the number of fields is bounded.

Like protobuf, a field of another wire type than the one expected is unknown, and skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from mmap import mmap

# Up to 1 us each. The largest graphs have some hundred thousand; numbers in a row count as one.
MAX_FIELDS = 3_000_000
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_NUMBER = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"

Data = bytes | mmap
Runs = Mapping[int, "re.Pattern[bytes]"]


class Malformed(Exception):  # noqa: N818 - what the file is
    """The bytes are no such message; the text says why, for people."""


def tag(number: int, kind: int = LENGTH) -> int:
    """Return what stands before a field of that number and wire type."""
    return number << 3 | kind


def run_of(*tags: int) -> Runs:
    """Return what finds the end of many numbers in a row, each with its tag: at C speed and in one step.

    Attributes have them so: a forest holds millions.
    """
    found = {}
    for each in tags:
        lead = re.escape(bytes([each]))
        body = {VARINT: _NUMBER, FIXED64: b".{8}", FIXED32: b".{4}"}[each & 7]
        found[each] = re.compile(b"(?:" + lead + body + b")++", re.DOTALL)
    return found


NO_RUNS: Runs = {}


class Wire:
    """Reads messages in `data`; all of them together may have at most `max_fields` fields."""

    __slots__ = ("_left", "data")

    def __init__(self, data: Data, max_fields: int = MAX_FIELDS) -> None:
        """Nothing is read yet."""
        self.data = data
        self._left = max_fields

    def fields(self, start: int, end: int, runs: Runs = NO_RUNS) -> Iterator[tuple[int, int, int]]:
        """Yield (tag, start, end) of each field of the message between `start` and `end`; raises Malformed.

        For a number (VARINT) it is (tag, value, end), the value unsigned. Numbers in a row whose tag is in `runs`
        come as one, with where their run starts and ends.
        """
        data, pos = self.data, start
        while pos < end:
            begin = pos
            key = data[pos]
            pos += 1
            if key >= 0x80:
                key, pos = self._varint(begin, end)
            self._left -= 1
            if key < 8 or self._left < 0:
                raise Malformed(f"it is damaged at byte {begin}" if key < 8 else "it has too many parts")
            kind = key & 7
            if kind == LENGTH:
                if pos < end and (size := data[pos]) < 0x80:
                    pos += 1
                else:
                    size, pos = self._varint(pos, end)
                first, pos = pos, pos + size
                if pos > end:
                    raise Malformed(f"it was cut off or is damaged: {pos - end} bytes are missing at byte {first}")
                yield key, first, pos
            elif kind == VARINT and key not in runs:
                value, pos = self._varint(pos, end)
                yield key, value, pos
            else:
                first, pos = pos, self._skip(runs.get(key), kind, begin, pos, end)
                yield key, first, pos

    def _skip(self, run: re.Pattern[bytes] | None, kind: int, begin: int, pos: int, end: int) -> int:
        """Return the end of the run of numbers that begins at `begin`, or of the one whose value is at `pos`."""
        if run is not None:
            # No match is kept: it would keep the map open.
            stop = getattr(run.match(self.data, begin, end), "end", int)()
        else:
            stop = pos + {FIXED32: 4, FIXED64: 8}.get(kind, -pos)
        if not begin < stop <= end:
            raise Malformed(f"it was cut off or is damaged at byte {begin}")
        return stop

    def _varint(self, pos: int, end: int) -> tuple[int, int]:
        data = self.data
        if pos < end and data[pos] < 0x80:
            return data[pos], pos + 1
        value = shift = 0
        for index in range(pos, min(end, pos + _VARINT_BYTES)):
            byte = data[index]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, index + 1
            shift += 7
        raise Malformed(f"it was cut off or is damaged at byte {pos}")

    def numbers(self, start: int, end: int, most: int) -> list[int]:
        """Return packed int64 numbers; raises Malformed if there are more than `most`."""
        found: list[int] = []
        while start < end:
            value, start = self._varint(start, end)
            found.append(int64(value))
            if len(found) > most:
                raise Malformed(f"it has a tensor of more than {most} dimensions")
        return found

    def text(self, start: int, end: int, most: int) -> str:
        """Return text of at most `most` bytes, what lies beyond them cut off; bytes that are no UTF-8 escaped."""
        return readable(self.data[start : min(end, start + most)])


def readable(text: bytes) -> str:
    """Return text whose bytes that are no UTF-8 are escaped."""
    return text.decode("utf-8", "backslashreplace")


def int64(value: int) -> int:
    """Return the signed value of a number."""
    return value - (1 << 64) if value >> 63 else value


def int32(value: int) -> int:
    """Return a number as protobuf reads it into an int32 or enum: its low 32 bits, signed."""
    low = value & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low
