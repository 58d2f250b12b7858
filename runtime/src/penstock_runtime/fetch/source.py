"""What every source of models is: a listing, and streams of the files in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file: its path relative to the model's root, with slashes, and its bytes if known."""

    path: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A model's files. `single` means the URI names one file, not a folder."""

    files: tuple[RemoteFile, ...]
    single: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """An open file: its bytes if known, and its content in chunks."""

    size: int | None
    chunks: Iterator[bytes | memoryview]


class Source(Protocol):
    """Where a model is kept. Failures are FetchError; TransientError where trying again may help."""

    name: str
    """How messages call it: the URI without secrets."""

    def list(self) -> Listing:
        """Return the files; raises FetchError ModelNotFound if there are none."""
        ...

    def open(self, file: RemoteFile) -> AbstractContextManager[Stream]:
        """Return the content of `file`, closed when the context ends."""
        ...
