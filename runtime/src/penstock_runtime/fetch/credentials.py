"""Credentials from a mounted Secret: one file a key."""

from __future__ import annotations

from pathlib import Path

KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "HTTP_BEARER_TOKEN",
    "HTTP_USERNAME",
    "HTTP_PASSWORD",
)


def read_credentials(folder: Path) -> dict[str, str]:
    """Return the known keys found as files in `folder`, stripped; empty where there are none."""
    found: dict[str, str] = {}
    for key in KEYS:
        try:
            value = (folder / key).read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if value:
            found[key] = value
    return found
