"""Which files of a model folder are the model, and which folders of a repository are models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from penstock_runtime.engine.errors import ModelLoadError

ONLY_VERSION = "1"


class ModelFile(NamedTuple):
    """The ONNX file to load and the version it is served as."""

    path: Path
    version: str


class VersionPolicy(NamedTuple):
    """Which of a model's numbered folders are served: the highest `latest` ones; None = all; or the `named`."""

    latest: int | None = 1
    named: frozenset[int] = frozenset()


LATEST = VersionPolicy()


def locate_model(path: Path) -> ModelFile:
    """Return the one ONNX file at `path`, the highest version of several; raises ModelLoadError."""
    return locate_versions(path, LATEST)[-1]


def locate_versions(path: Path, policy: VersionPolicy) -> list[ModelFile]:
    """Return the ONNX files at `path` by rising version: a file, a folder of one, or numbered folders.

    A file, or a folder of one, is version 1 whatever `policy` says. In a folder `model.onnx` is taken, else the
    only *.onnx. Raises ModelLoadError saying what was found, or which link leads out of the folder.
    """
    if path.is_file():
        return [ModelFile(path, ONLY_VERSION)]
    if not path.is_dir():
        raise ModelLoadError(f"no model at {path}: there is no such file or folder")
    found = _in_folder(path)
    if found is not None:
        return [ModelFile(found, ONLY_VERSION)]
    numbered = _numbered(path, policy)
    if numbered:
        _check_inside(path, numbered)
        return numbered
    names = sorted(item.name for item in path.iterdir())[:10]
    listing = f"it holds {', '.join(names)}" if names else "it is empty"
    raise ModelLoadError(f"no .onnx file in {path}: {listing}")


def locate_models(root: Path) -> dict[str, Path]:
    """Return the models of the repository `root` by name: its folders, but for hidden ones. Raises ModelLoadError."""
    if not root.is_dir():
        raise ModelLoadError(f"no model repository at {root}: there is no such folder")
    return {item.name: item for item in sorted(root.iterdir()) if is_model_name(item.name) and item.is_dir()}


def is_model_name(name: str) -> bool:
    """Return whether `name` can be a folder of a repository: one part of a path, and not hidden."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name and len(name) <= 255


def _numbered(path: Path, policy: VersionPolicy) -> list[ModelFile]:
    folders = sorted((int(item.name), item) for item in path.iterdir() if item.is_dir() and item.name.isdecimal())
    if policy.named:
        missing = policy.named.difference(number for number, _ in folders)
        if missing:
            raise ModelLoadError(f"no version {', '.join(map(str, sorted(missing)))} in {path}")
        folders = [item for item in folders if item[0] in policy.named]
    files = [ModelFile(file, str(number)) for number, folder in folders if (file := _in_folder(folder)) is not None]
    return files[-policy.latest :] if policy.latest is not None and not policy.named else files


def _check_inside(root: Path, files: list[ModelFile]) -> None:
    for file in files:
        target = Path(os.path.realpath(file.path.parent))
        if not target.is_relative_to(os.path.realpath(root)):
            raise ModelLoadError(
                f"{file.path.parent} is a link that leads out of {root}, to {target}; copy that folder"
            )


def _in_folder(folder: Path) -> Path | None:
    preferred = folder / "model.onnx"
    if preferred.is_file():
        return preferred
    candidates = sorted(item for item in folder.glob("*.onnx") if item.is_file())
    if len(candidates) > 1:
        names = ", ".join(item.name for item in candidates[:10])
        raise ModelLoadError(f"several .onnx files in {folder} ({names}): name the one to serve model.onnx")
    return candidates[0] if candidates else None
