"""Writes image archives by hand, from programs and ready layers: no daemon, and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path

BIN = "usr/local/bin"
_ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


@dataclass(frozen=True)
class Image:
    """An image: its reference, the program it runs, and layers (tar files) that lie under the program."""

    reference: str
    program: Path
    name: str
    layers: tuple[Path, ...] = ()
    user: str = ""


def architecture() -> str:
    """This machine's architecture as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def write_archive(path: Path, images: list[Image]) -> None:
    """Write the images into one file that `docker load` and `ctr images import` both read."""
    part = path.with_name(f".{path.name}.part")
    entries: list[dict[str, object]] = []
    with tarfile.open(part, "w") as archive:
        for image in images:
            layers = [_add_file(archive, layer) for layer in image.layers]
            layers.append(_add_program(archive, image, path.parent))
            config: dict[str, object] = {
                "architecture": architecture(),
                "os": "linux",
                "config": {"Env": _ENV, "Entrypoint": [f"/{BIN}/{image.name}"], "User": image.user},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
                "history": [{"created_by": f"{image.name}, layer {number}"} for number in range(len(layers))],
            }
            data = json.dumps(config, sort_keys=True).encode()
            name = hashlib.sha256(data).hexdigest() + ".json"
            _add_bytes(archive, name, data)
            entries.append(
                {"Config": name, "RepoTags": [image.reference], "Layers": [f"{digest}.tar" for digest in layers]}
            )
        _add_bytes(archive, "manifest.json", json.dumps(entries).encode())
    part.rename(path)


def _add_program(archive: tarfile.TarFile, image: Image, scratch: Path) -> str:
    layer = scratch / f".{image.name}.layer"
    try:
        with tarfile.open(layer, "w") as tar:
            parts = BIN.split("/")
            for depth in range(1, len(parts) + 1):
                folder = tarfile.TarInfo("/".join(parts[:depth]))
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            # programs expect a place for temporary files
            temporary = tarfile.TarInfo("tmp")
            temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(temporary)
            info = tarfile.TarInfo(f"{BIN}/{image.name}")
            info.size, info.mode = image.program.stat().st_size, 0o755
            with image.program.open("rb") as file:
                tar.addfile(info, file)
        return _add_file(archive, layer)
    finally:
        layer.unlink(missing_ok=True)


def _add_file(archive: tarfile.TarFile, layer: Path) -> str:
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if f"{digest}.tar" not in archive.getnames():
        info = tarfile.TarInfo(f"{digest}.tar")
        info.size = layer.stat().st_size
        with layer.open("rb") as file:
            archive.addfile(info, file)
    return digest


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
