"""What is asked of a model file before ONNX Runtime may open it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.onnx_file.domains import custom, why_refused
from penstock_runtime.engine.onnx_file.model import OnnxFile, opened, read_model
from penstock_runtime.engine.onnx_file.wire import Malformed

# What people have put there instead.
_OTHERS = (
    (0, b"version https://git-lfs", "a pointer of Git LFS; run `git lfs pull` to get the model itself"),
    (0, b"PK\x03\x04", "a ZIP archive, such as PyTorch and Keras save; export the model to ONNX"),
    (0, b"\x89HDF\r\n", "HDF5, such as Keras saves; export the model to ONNX"),
    (0, b"\x1f\x8b", "packed with gzip; unpack it"),
    (0, b"<", "text, such as a web page; the download may have failed"),
    (4, b"ORTM", "in ONNX Runtime's own format; give the .onnx file that it was made from"),
)
_MAX_LEAD = 32


def check_model(path: Path, allowed: Collection[str] = ()) -> None:
    """Raise ModelLoadError if the file at `path` must not be loaded, saying why.

    Refused are: what is no ONNX model; links that lead out of its folder; external data outside of the folder or
    beyond the end of their file, of any tensor of any graph or function; tensors that claim more than the file
    holds; operators of custom domains that are not in `allowed`. It holds for the files as they are now: who can
    write to the folder afterwards can still exchange them.
    """
    problems = why_not(describe(path), allowed)
    if (outside := why_outside(path)) is not None:
        problems.insert(0, outside)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ModelLoadError(f"{path.name} is refused: {problems[0]}{more}")


def describe(path: Path) -> OnnxFile:
    """Return what the file holds; raises ModelLoadError if it cannot be read or is no ONNX model."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelLoadError(f"{path.name} is no regular file")
        if not status.st_size:
            raise ModelLoadError(f"{path.name} is empty")
        with opened(path) as wire:
            lead = wire.data[:_MAX_LEAD]
            try:
                return read_model(wire, path.parent)
            except Malformed as error:
                other = next((text for at, mark, text in _OTHERS if lead.startswith(mark, at)), None)
                reason = f"it is {other}" if other else str(error)
                raise ModelLoadError(f"{path.name} is not an ONNX model: {reason}") from None
    except OSError as error:
        raise ModelLoadError(f"{path.name} cannot be read: {(error.strerror or 'unknown').lower()}") from None


def why_not(found: OnnxFile, allowed: Collection[str]) -> list[str]:
    """Return what in the file speaks against loading it, for people."""
    refused = [each for each in custom(found.operators, found.functions) if each[0] not in allowed]
    return [*found.problems, *(why_refused(each) for each in refused)]


def why_outside(path: Path) -> str | None:
    """Return why a link at `path` must not be followed, None if it stays in its folder or is none.

    So do those by which Kubernetes puts the files of ConfigMaps and Secrets into place (..data).
    """
    target = os.path.realpath(path)
    folder = os.path.realpath(path.parent)
    if Path(target).is_relative_to(folder):
        return None
    return f"it is a link that leads out of its folder, to {target}; name that file instead, or copy it"
