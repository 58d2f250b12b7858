"""Bringing a source's files to disk: streamed, hashed, counted, tried again, never half."""

from __future__ import annotations

import errno
import hashlib
import logging
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from penstock_runtime.fetch.digest import FileDigest
from penstock_runtime.fetch.errors import FetchError, TransientError
from penstock_runtime.fetch.source import Listing, RemoteFile, Source
from penstock_runtime.log import event

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
MAX_FILES = 10_000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often to try, and the seconds before the second try; the wait doubles, up to 30 s."""

    attempts: int = 5
    first_wait: float = 1.0

    def run(self, what: str, action: Callable[[], _T]) -> _T:
        """Return `action()`, tried again after a TransientError until the attempts are used up."""
        for attempt in range(1, self.attempts + 1):
            try:
                return action()
            except TransientError as error:
                if attempt == self.attempts:
                    raise
                wait = min(self.first_wait * 2 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0)  # noqa: S311
                event(logger, "will try again", level=logging.WARNING, what=what, error=error.message,
                      attempt=attempt, of=self.attempts, wait_seconds=round(wait, 2))  # fmt: skip
                time.sleep(wait)
        raise AssertionError("attempts is at least 1")


class Progress:
    """Logs the bytes so far, at most every 5 s."""

    def __init__(self, name: str, total: int | None) -> None:
        """`total` in bytes, None if not known."""
        self._name = name
        self._total = total
        self._last = time.monotonic()

    def report(self, done: int) -> None:
        """Log `done` bytes if it is time to."""
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        event(logger, "fetching", source=self._name, bytes=done, total_bytes=self._total,
              percent=round(100 * done / self._total, 1) if self._total else None)  # fmt: skip


def download(
    source: Source, listing: Listing, folder: Path, retry: Retry, rename: Callable[[str], str]
) -> list[FileDigest]:
    """Write all files of `listing` below `folder`, named by `rename`, and return what was written.

    Raises FetchError: InvalidModel for an empty file or an unsafe path, NoSpace, or what the source says.
    """
    if len(listing.files) > MAX_FILES:
        raise FetchError("InvalidModel", f"{source.name} has more than {MAX_FILES} files; is the path right?")
    sizes = [file.size for file in listing.files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    check_space(folder, total)
    progress = Progress(source.name, total)
    written: list[FileDigest] = []
    before = 0
    for file in listing.files:
        target = _safe_target(folder, rename(file.path), source.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        report = _offset_report(progress, before)
        done = retry.run(file.path, lambda f=file, t=target, r=report: _fetch_file(source, f, t, r))  # type: ignore[misc]
        written.append(FileDigest(file.path, done.size, done.sha256))
        before += done.size
    if before == 0:
        raise FetchError("InvalidModel", f"{source.name} is empty (0 bytes)")
    return written


def check_space(folder: Path, needed: int | None) -> None:
    """Raise FetchError NoSpace if `needed` bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise FetchError("NoSpace", f"the model has {needed} bytes, the volume has {free} free; enlarge it")


def _offset_report(progress: Progress, before: int) -> Callable[[int], None]:
    return lambda done: progress.report(before + done)


def _safe_target(folder: Path, path: str, name: str) -> Path:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise FetchError("InvalidModel", f"{name} has a file whose path is not safe")
    return folder.joinpath(*pure.parts)


def _fetch_file(source: Source, file: RemoteFile, target: Path, report: Callable[[int], None]) -> FileDigest:
    digest = hashlib.sha256()
    size = 0
    try:
        with source.open(file) as stream, target.open("wb") as out:
            if file.size is None:
                check_space(target.parent, stream.size)
            for chunk in stream.chunks:
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                report(size)
            expected = stream.size
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError("NoSpace", f"the volume is full after {size} bytes; enlarge it") from None
        raise TransientError(f"{source.name}: {error.strerror or type(error).__name__}") from None
    if expected is not None and size != expected:
        raise TransientError(f"{source.name}: {size} of {expected} bytes came, then the connection ended")
    return FileDigest(file.path, size, digest.hexdigest())
