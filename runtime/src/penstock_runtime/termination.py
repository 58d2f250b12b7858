"""The termination message: how a container tells the operator its result or why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

DEFAULT_PATH = Path("/dev/termination-log")
# The kubelet keeps 4096 bytes of it; beyond that the JSON would be cut and unreadable.
MAX_TEXT = 2000


def write(path: Path | None, message: Mapping[str, object]) -> None:
    """Write `message` as compact JSON to `path`, or to the container's default where that exists.

    Texts longer than 2,000 characters are shortened. A path that cannot be written is ignored: the
    exit code and the log still tell the story.
    """
    target = path if path is not None else DEFAULT_PATH
    if path is None and not target.exists():
        return
    short = {key: shorten(value) if isinstance(value, str) else value for key, value in message.items()}
    try:
        target.write_bytes(orjson.dumps(short))
    except OSError:
        return


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text`, or its first `limit` characters with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
