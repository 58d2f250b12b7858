"""Digests of models: of a file its sha256, of a folder that of its files' list."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from penstock_runtime.fetch.errors import FetchError

_FORM = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file: path relative to the model's root, bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


def model_digest(files: Iterable[FileDigest], *, single: bool) -> str:
    """Return "sha256:<hex>" of a model.

    A single file's is the sha256 of its bytes. A folder's is that of the lines "<sha256>  <path>\\n" in
    byte order, so that `sha256sum` and `LC_ALL=C sort` can check it.
    """
    listed = list(files)
    if single:
        return f"sha256:{listed[0].sha256}"
    lines = sorted(f"{item.sha256}  {item.path}\n".encode() for item in listed)
    return f"sha256:{hashlib.sha256(b''.join(lines)).hexdigest()}"


def parse_digest(text: str | None, where: str) -> str | None:
    """Return the digest in `text`, None if it is empty; raises FetchError naming `where` if it is none."""
    value = (text or "").strip().lower()
    if not value:
        return None
    if _FORM.fullmatch(value) is None:
        raise FetchError("DigestMismatch", f"{where} must be sha256: and 64 hexadecimal digits")
    return value


def read_lock(folder: Path) -> str | None:
    """Return the digest that the revision is locked to, None before its first load."""
    try:
        return parse_digest((folder / "digest").read_text(), "the revision's lock")
    except (OSError, UnicodeDecodeError):
        return None


def hash_file(path: Path, root: Path) -> FileDigest:
    """Return the digest of a file on disk."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileDigest(path.relative_to(root).as_posix(), path.stat().st_size, sha256)
