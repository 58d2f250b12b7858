"""Root file systems from Debian packages, as Docker images, where no image registry can be reached."""

from __future__ import annotations

import os
import shutil
import subprocess

from e2e.cluster.console import Problem, locked, logged
from e2e.cluster.engine import apt_install, docker, has_image
from e2e.cluster.places import CACHE, LOGS, fingerprint, need_space

SUITE = "bookworm"
PYTHON_PACKAGES = ("ca-certificates", "libstdc++6", "python-is-python3", "python3", "python3-venv")


def python_base() -> str:
    """The reference of a Debian image with Python 3.11, made by mmdebstrap once."""
    return debian_image("python", PYTHON_PACKAGES)


def debian_image(name: str, packages: tuple[str, ...]) -> str:
    """The reference of a minimal Debian image with some packages, made once and kept in Docker.

    Raises Problem where this machine is no Debian (mmdebstrap is needed) or the build fails.
    """
    reference = image_of(name, packages)
    if has_image(reference):
        return reference
    with locked(CACHE / "lock" / f"rootfs-{name}", f"Debian files for {name}"):
        if not has_image(reference):
            _make(name, packages, reference)
    return reference


def image_of(name: str, packages: tuple[str, ...]) -> str:
    """The reference `debian_image` gives, whether it is made yet or not."""
    return f"penstock.local/{name}-rootfs:{fingerprint(SUITE, *packages)}"


def _make(name: str, packages: tuple[str, ...], reference: str) -> None:
    if os.geteuid() != 0:
        raise Problem(
            "no image registry can be reached, and making images from Debian packages needs root",
            "run this as root, or give this machine access to an image registry",
        )
    if shutil.which("mmdebstrap") is None:
        apt_install("mmdebstrap")
    need_space(3, "making images from Debian packages")
    target = CACHE / f"{name}-rootfs.tar"
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    # documentation is no use in an image
    command += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]
    command += ["--dpkgopt=path-exclude=/usr/share/locale/*"]
    try:
        logged(
            f"making a Debian root file system for {name}",
            [*command, SUITE, target, *_sources()],
            LOGS / f"rootfs-{name}.log",
            env={"DEBIAN_FRONTEND": "noninteractive"},
            fix="is the Debian mirror reachable?",
        )
        docker("import", "--change", "ENV LANG=C.UTF-8", target, reference, timeout=300)
    finally:
        target.unlink(missing_ok=True)


def _sources() -> list[str]:
    """This machine's own Debian mirrors, where it runs the same suite; else mmdebstrap's default."""
    row = "$(REPO_URI) $(CODENAME) $(ORIGIN) $(COMPONENT)"
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", row, "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = {tuple(line.split()) for line in listing.stdout.splitlines()}
    mine = sorted(r for r in rows if len(r) == 4 and r[2] == "Debian" and r[3] == "main" and r[1].startswith(SUITE))
    if not any(row[1] == SUITE for row in mine):
        return []
    return [f"deb {address} {suite} main" for address, suite, _, _ in mine]
