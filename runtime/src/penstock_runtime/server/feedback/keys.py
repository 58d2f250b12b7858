"""The keys that sign prediction ids, shared by all replicas of a model through mounted files."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from penstock_runtime.log import event

logger = logging.getLogger(__name__)


class Keys:
    """`current` signs; `current`, `previous` and `next` verify, so a rotation loses no id in flight.

    Pods see a changed Secret at different times, some a minute late: a new key that is published as `next` first
    is known everywhere when it begins to sign. Without files a random key of this server is used: its ids are
    then valid in this server alone.
    """

    def __init__(self, folder: Path, own: bytes | None = None) -> None:
        """Read the keys in `folder`; see `refresh`. `own`: 32 bytes to use where there are no files."""
        self._folder = folder
        self._own = own or os.urandom(32)
        self.current = self._own
        self.previous: bytes | None = None
        self.next: bytes | None = None
        if not self.refresh():
            event(logger, "no feedback key: prediction ids are valid in this server only", folder=str(folder))

    @property
    def verifying(self) -> tuple[bytes, ...]:
        """The keys that an id may be signed with."""
        return tuple(key for key in (self.current, self.previous, self.next) if key is not None)

    def refresh(self) -> bool:
        """Read the files again; return whether a current key is there. An unreadable file changes nothing."""
        current = _read(self._folder / "current")
        if current is None:
            return False
        previous = _read(self._folder / "previous")
        self.next = _read(self._folder / "next")
        if current != self.current:
            # A key this process signed with stays valid even where no `previous` is mounted.
            self.previous = previous or (self.current if self.current is not self._own else None)
            self.current = current
        elif previous is not None:
            self.previous = previous
        return True


def _read(path: Path) -> bytes | None:
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    # A keyed blake2s takes at most 32 bytes; hashing accepts keys of any length.
    return hashlib.blake2s(raw).digest() if raw else None
