"""Which file of a model folder is the model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from penstock_runtime.engine.errors import ModelLoadError


class ModelFile(NamedTuple):
    """The ONNX file to load and the version it is served as."""

    path: Path
    version: str


def locate_model(path: Path) -> ModelFile:
    """Return the ONNX file at `path`: a file, a folder of one, or numbered folders (the highest wins).

    In a folder `model.onnx` is taken, else the only *.onnx. Raises ModelLoadError saying what was found.
    """
    if path.is_file():
        return ModelFile(path, "1")
    if not path.is_dir():
        raise ModelLoadError(f"no model at {path}: there is no such file or folder")
    found = _in_folder(path)
    if found is not None:
        return ModelFile(found, "1")
    numbered = sorted((int(item.name), item) for item in path.iterdir() if item.is_dir() and item.name.isdecimal())
    for number, folder in reversed(numbered):
        found = _in_folder(folder)
        if found is not None:
            return ModelFile(found, str(number))
    names = sorted(item.name for item in path.iterdir())[:10]
    listing = f"it holds {', '.join(names)}" if names else "it is empty"
    raise ModelLoadError(f"no .onnx file in {path}: {listing}")


def _in_folder(folder: Path) -> Path | None:
    preferred = folder / "model.onnx"
    if preferred.is_file():
        return preferred
    candidates = sorted(item for item in folder.glob("*.onnx") if item.is_file())
    if len(candidates) > 1:
        names = ", ".join(item.name for item in candidates[:10])
        raise ModelLoadError(f"several .onnx files in {folder} ({names}): name the one to serve model.onnx")
    return candidates[0] if candidates else None
