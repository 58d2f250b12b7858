"""Writing for people at a terminal."""

from __future__ import annotations

import os
import sys


def for_people() -> bool:
    """Return whether stderr is read by a person: a terminal, and no pod's log."""
    return sys.stderr.isatty() and "KUBERNETES_SERVICE_HOST" not in os.environ


def printable(text: str) -> str:
    """Return `text` with what is not to be printed, such as control characters, escaped: files are not trusted."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
