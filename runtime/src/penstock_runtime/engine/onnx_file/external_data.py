"""Tensors whose data lie in files of their own: which files a model may name.

ONNX Runtime opens what the model says. It checks some of this, of some tensors; a model from elsewhere must not be
able to make the server read another model's weights, a Secret, a pipe or its own memory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

# ONNX Runtime's mark for "not a file: the offset is an address in memory".
_MEMORY_MARK = "_ORT_MEM_ADDR_"
MAX_LOCATION = 1024
_MAX_DIGITS = 19


class Refused(Exception):  # noqa: N818 - what the location is
    """The data may not be read from there; the text says why, for people."""


class ExternalFiles:
    """The files beside a model that its tensors lie in. `sizes` are those of the files named so far."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the model's own; links are followed, but must stay in it."""
        self._folder = folder
        self._root = Path(os.path.realpath(folder))
        self.sizes: dict[str, int] = {}

    def check(self, location: str, offset: str, length: str, needed: int) -> None:
        """Raise Refused unless `length` bytes from `offset`, at least `needed`, can be had from the file.

        All but `needed` as the file tells them; an empty offset is 0, an empty length the rest of the file.
        """
        size = self.sizes.get(location)
        if size is None:
            size = self.sizes[location] = self._size(location)
        start, count = _number(offset, "offset"), _number(length, "length")
        if start > size or (length and start + count > size):
            span = f"{count} bytes at offset {start}" if length else f"offset {start}"
            raise Refused(f"{span} lie beyond the end of the file, which has {size} bytes")
        held = count if length else size - start
        if needed > held:
            raise Refused(f"the tensor takes {needed} bytes, and only {held} are there")

    def _size(self, location: str) -> int:
        check_location(location)
        try:
            path = os.path.realpath(self._folder / location, strict=True)
            status = os.stat(path)  # noqa: PTH116 - of the same text that was resolved
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise Refused(f"the file cannot be found ({(reason or 'not a file name').lower()})") from None
        if not Path(path).is_relative_to(self._root):
            raise Refused(f"the link leads out of the model's folder, to {path}")
        if not stat.S_ISREG(status.st_mode):
            raise Refused("this is no regular file")
        return status.st_size


def check_location(location: str) -> None:
    """Raise Refused if `location` cannot be a file in the model's folder, whatever is there."""
    parts = PurePosixPath(location).parts
    if not parts:
        raise Refused("no file is named")
    if location.startswith("/"):
        raise Refused("the path is absolute; external data must lie in the model's folder")
    if ".." in parts:
        raise Refused("the path leads out of the model's folder with '..'")
    if _MEMORY_MARK in parts:
        raise Refused("this stands for an address in memory, which no file may name")
    if len(location) >= MAX_LOCATION or not location.isprintable():
        raise Refused("the path is too long, or has characters that cannot be printed")


def _number(text: str, what: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise Refused(f"the {what} '{text[:40]}' is no whole number of bytes")
    return int(text)
