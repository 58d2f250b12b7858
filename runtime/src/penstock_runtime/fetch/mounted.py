"""Models on volumes that the operator mounted: ConfigMaps and persistent volumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock_runtime.fetch.errors import FetchError, TransientError
from penstock_runtime.fetch.source import Listing, RemoteFile, Stream
from penstock_runtime.fetch.uri import ModelUri

CHUNK = 1 << 20


class MountedSource:
    """A file or folder below the mounted volume; links may not lead out of it."""

    def __init__(self, uri: ModelUri, source_dir: Path) -> None:
        """Read `uri.path` below `source_dir`."""
        self.name = uri.shown
        self._volume = source_dir
        self._path = source_dir / uri.path
        self._root = self._path

    def list(self) -> Listing:
        """Return the file, or every regular file of the folder."""
        if not self._volume.is_dir():
            raise TransientError(f"{self.name}: nothing is mounted at {self._volume}")
        if not self._path.exists():
            raise FetchError("ModelNotFound", f"{self.name} does not exist in the volume")
        self._check_inside(self._path)
        if self._path.is_file():
            self._root = self._path.parent
            return Listing((RemoteFile(self._path.name, self._path.stat().st_size),), single=True)
        files = tuple(self._walk())
        if not files:
            raise FetchError("ModelNotFound", f"{self.name} is an empty folder")
        return Listing(files, single=False)

    def _walk(self) -> Iterator[RemoteFile]:
        for path in files_below(self._path):
            self._check_inside(path)
            yield RemoteFile(path.relative_to(self._path).as_posix(), path.stat().st_size)

    def _check_inside(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self._volume.resolve()):
            raise FetchError("InvalidModel", f"{self.name}: {path.name} is a link that leads out of the volume")

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[Stream]:
        """Read the file."""
        try:
            with (self._root / file.path).open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                yield Stream(size, iter(lambda: stream.read(CHUNK), b""))
        except PermissionError:
            raise FetchError("AccessDenied", f"{self.name}: {file.path} may not be read by this user") from None
        except FileNotFoundError:
            raise FetchError("ModelNotFound", f"{self.name}: {file.path} went away") from None


def files_below(root: Path) -> Iterator[Path]:
    """Return the files of a model's folder, in order of name."""
    for folder, names, files in os.walk(root):
        # ..data and ..<time> are how the kubelet swaps a ConfigMap's files.
        names[:] = sorted(name for name in names if not name.startswith(".."))
        for name in sorted(files):
            path = Path(folder) / name
            if not name.startswith("..") and path.is_file():
                yield path
