"""`penstock-runtime fetch`: the init container that brings a model, whole and verified, or says why not."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from penstock_runtime import termination
from penstock_runtime.fetch.credentials import read_credentials
from penstock_runtime.fetch.digest import FileDigest, hash_file, model_digest, parse_digest, read_lock
from penstock_runtime.fetch.download import Retry, download
from penstock_runtime.fetch.errors import FetchError
from penstock_runtime.fetch.mounted import MountedSource
from penstock_runtime.fetch.source import Listing, Source
from penstock_runtime.fetch.uri import ModelUri, parse_uri
from penstock_runtime.log import event, origin

logger = logging.getLogger(__name__)

MODEL_FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched: its digest, bytes and number of files."""

    digest: str
    bytes: int
    files: int


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--uri", required=True, help="http(s)://, s3://, configmap:// or pvc://")
    parser.add_argument("--dest", type=Path, required=True, help="folder to make; replaced if it exists")
    parser.add_argument("--digest", help="sha256:<hex> that the model must have")
    parser.add_argument("--lock-dir", type=Path, default=Path("/etc/penstock/revision"),
                        help="folder whose file 'digest' locks the revision's bytes")  # fmt: skip
    parser.add_argument("--credentials-dir", type=Path, default=Path("/etc/penstock/credentials"),
                        help="folder with one file a key, such as AWS_ACCESS_KEY_ID")  # fmt: skip
    parser.add_argument("--source-dir", type=Path, default=Path("/mnt/source"),
                        help="where the operator mounts a ConfigMap or claim")  # fmt: skip
    parser.add_argument("--layout", choices=("flat", "numeric-version"), default="flat",
                        help="numeric-version puts the files into DEST/1")  # fmt: skip
    parser.add_argument("--attempts", type=int, default=5, help="tries after failures that may pass")
    parser.add_argument("--retry-seconds", type=float, default=1.0, help="wait before the second try")
    parser.add_argument("--termination-log", type=Path, help="file for the result, as JSON")


def run(args: Namespace) -> int:
    """Fetch as `args` say, report in the termination log and on stdout, and return the exit code."""
    start = time.monotonic()
    try:
        fetched = fetch(args)
    except FetchError as error:
        event(logger, "fetch failed", level=logging.ERROR, reason=error.reason, error=error.message)
        termination.write(args.termination_log, {"reason": error.reason, "message": error.message})
        return 1
    except Exception as error:  # noqa: BLE001 - whatever happens, the operator must be told
        kind = type(error).__name__
        event(logger, "fetch failed", level=logging.ERROR, error=kind, where=origin(error))
        message = f"fetching failed unexpectedly ({kind}); see the container's log"
        termination.write(args.termination_log, {"reason": "SourceUnreachable", "message": message})
        return 1
    event(logger, "fetched", seconds=round(time.monotonic() - start, 3), **asdict(fetched))
    termination.write(args.termination_log, asdict(fetched))
    sys.stdout.write(orjson.dumps(asdict(fetched)).decode() + "\n")
    return 0


def fetch(args: Namespace) -> Fetched:
    """Bring the model to `args.dest` and return what it is; raises FetchError, and then leaves no dest."""
    uri = parse_uri(args.uri)
    pinned = parse_digest(args.digest, "the model's digest")
    locked = read_lock(args.lock_dir)
    kept = _keep_existing(args.dest, args.layout, {pinned, locked} - {None})
    if kept is not None:
        event(logger, "already here and verified", dest=str(args.dest))
        return kept
    source = _source(uri, args)
    retry = Retry(max(1, args.attempts), args.retry_seconds)
    event(logger, "fetching", source=source.name)
    staging = args.dest.parent / f".{args.dest.name}.partial"
    try:
        listing = retry.run(source.name, source.list)
        files = _download(source, listing, staging, args.layout, retry)
        digest = model_digest(files, single=listing.single)
        _verify(digest, pinned, locked, source.name)
        _put_in_place(staging, args.dest)
    except OSError as error:
        raise _disk_error(error) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Fetched(digest, sum(file.size for file in files), len(files))


def _source(uri: ModelUri, args: Namespace) -> Source:
    match uri.scheme:
        case "http" | "https":
            from penstock_runtime.fetch.http import HttpSource

            return HttpSource(uri, read_credentials(args.credentials_dir))
        case "s3":
            from penstock_runtime.fetch.s3 import S3Source

            return S3Source(uri, read_credentials(args.credentials_dir))
    return MountedSource(uri, args.source_dir)


def _download(source: Source, listing: Listing, staging: Path, layout: str, retry: Retry) -> list[FileDigest]:
    shutil.rmtree(staging, ignore_errors=True)
    folder = _files_folder(staging, layout)
    folder.mkdir(parents=True)
    return download(source, listing, folder, retry, _single_name if listing.single else str)


def _files_folder(root: Path, layout: str) -> Path:
    return root / "1" if layout == "numeric-version" else root


def _single_name(path: str) -> str:
    """Return the name of a single file in dest: model.onnx, unless its ending says it is something else."""
    name = path.rpartition("/")[2]
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    # "fraud.v7" is a version, not a file type: types have letters first.
    known_other = ending and ending != "onnx" and ending[0].isalpha() and not ending[1:].isdecimal()
    return name if known_other else MODEL_FILE


def _verify(digest: str, pinned: str | None, locked: str | None, name: str) -> None:
    if pinned is not None and digest != pinned:
        raise FetchError("DigestMismatch", f"{name} has the digest {digest}, spec.model.digest asks for {pinned}")
    if locked is not None and digest != locked:
        raise FetchError(
            "SourceChanged",
            f"{name} has changed since this revision was first loaded: it was {locked}, it is {digest} now; "
            "put the old files back, or change spec.model to roll the new ones out",
        )


def _keep_existing(dest: Path, layout: str, wanted: set[str | None]) -> Fetched | None:
    """Return what is at `dest` if it is what is wanted: an init container may run twice in a pod's life."""
    root = _files_folder(dest, layout)
    if len(wanted) != 1 or not root.is_dir():
        return None
    files = [hash_file(path, root) for path in sorted(root.rglob("*")) if path.is_file()]
    if not files:
        return None
    size = sum(file.size for file in files)
    for single in (True, False) if len(files) == 1 else (False,):
        digest = model_digest(files, single=single)
        if digest in wanted:
            return Fetched(digest, size, len(files))
    return None


def _put_in_place(staging: Path, dest: Path) -> None:
    """Rename `staging` to `dest`: a reader sees the old files or the new ones, never some of each."""
    old = dest.parent / f".{dest.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if dest.is_dir():
        dest.rename(old)
    elif dest.exists():
        dest.unlink()
    staging.rename(dest)
    shutil.rmtree(old, ignore_errors=True)
    descriptor = os.open(dest.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(error: OSError) -> FetchError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FetchError("NoSpace", "the volume for the model is full; enlarge it")
    return FetchError("NoSpace", f"the model's volume cannot be written: {error.strerror}")
