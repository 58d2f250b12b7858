"""Bearer tokens in a file, exchanged while the server serves."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from pathlib import Path

from penstock_runtime.log import event
from penstock_runtime.server.settings import SettingsError

logger = logging.getLogger(__name__)

MAX_TOKENS = 100
# RFC 6750, section 2.1.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


class Tokens:
    """The tokens of which a request must bring one; only their hashes are kept, and none is ever logged.

    The file has one a line; empty lines and those that begin with # are skipped. While an old and a new one are
    both in it, clients can move from one to the other.
    """

    def __init__(self, file: Path) -> None:
        """Read the file; raises SettingsError if it has no token or a malformed one."""
        self._file = file
        try:
            self._seen: bytes | None = file.read_bytes()
            self._hashes = _read_tokens(self._seen)
        except (OSError, ValueError) as error:
            raise SettingsError(f"tokens: {self._describe(error)}") from None

    def refresh(self) -> bool:
        """Take what the file has now; return whether it changed. A bad file is logged, the old tokens stay."""
        try:
            text = self._file.read_bytes()
        except OSError as error:
            if self._seen is not None:
                self._seen = None
                self._complain(error)
            return False
        if text == self._seen:
            return False
        self._seen = text
        try:
            self._hashes = _read_tokens(text)
        except ValueError as error:
            self._complain(error)
            return False
        event(logger, "tokens changed", file=str(self._file), tokens=len(self._hashes))
        return True

    def allow(self, presented: bytes) -> bool:
        """Tell whether `presented` is one of the tokens; how long that takes tells nothing about them."""
        found = hashlib.sha256(presented).digest()
        allowed = False
        for known in self._hashes:
            allowed |= hmac.compare_digest(found, known)
        return allowed

    def _complain(self, error: Exception) -> None:
        event(logger, "the token file changed and cannot be used; the old tokens stay",
              level=logging.ERROR, error=self._describe(error))  # fmt: skip

    def _describe(self, error: Exception) -> str:
        return f"{self._file}: {error.strerror if isinstance(error, OSError) else error}"


def _read_tokens(text: bytes) -> list[bytes]:
    hashes: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        token = line.strip()
        if not token or token.startswith(b"#"):
            continue
        if _TOKEN.fullmatch(token) is None:
            raise ValueError(f"line {number} is no token; it may hold letters, digits and ._~+/- with = at its end")
        hashes.append(hashlib.sha256(token).digest())
    if not hashes:
        raise ValueError("there is no token in it; write one a line, such as `openssl rand -hex 32` makes")
    if len(hashes) > MAX_TOKENS:
        raise ValueError(f"{len(hashes)} tokens; at most {MAX_TOKENS} are taken")
    return hashes
