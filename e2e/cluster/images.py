"""Builds the product's images from this checkout, without a network inside the build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.archive import architecture
from e2e.cluster.console import Problem, locked, logged, progress, say, succeeds
from e2e.cluster.engine import apt_install, build, docker, ensure_engine, has_image, pull
from e2e.cluster.places import CACHE, LOGS, ROOT, fingerprint, need_space
from e2e.cluster.rootfs import PYTHON_PACKAGES, image_of, python_base

STOCK_BASE = "python:3.11-slim-bookworm"
PULL_S = 300
KEPT = 4  # builds of one image that stay in Docker, for going back and for other checkouts


@dataclass(frozen=True)
class Product:
    """One image: its reference, Dockerfile, pinned requirements, and the package it holds."""

    reference: str
    dockerfile: Path
    requirements: Path
    package: Path

    @property
    def name(self) -> str:
        """The short name a person uses for it."""
        return self.dockerfile.parent.name


PRODUCTS = {
    product.name: product
    for product in (
        Product(
            "penstock.local/operator:dev",
            ROOT / "operator" / "Dockerfile",
            ROOT / "requirements" / "operator.txt",
            ROOT / "operator" / "src" / "penstock",
        ),
        Product(
            "penstock.local/runtime:dev",
            ROOT / "runtime" / "Dockerfile",
            ROOT / "requirements" / "runtime.txt",
            ROOT / "runtime" / "src" / "penstock_runtime",
        ),
    )
}


def build_product(name: str) -> str:
    """Build one product image where its sources changed since; its reference."""
    if name not in PRODUCTS:
        raise Problem(f"no image is called {name!r}", f"use one of: {', '.join(PRODUCTS)}")
    ensure_engine()
    with held(PRODUCTS[name]):
        return PRODUCTS[name].reference


@contextmanager
def held(product: Product) -> Iterator[None]:
    """Within, the product's reference names the image of this checkout's sources, built if need be.

    Two checkouts share one Docker and one reference; the lock keeps the other from moving it meanwhile.
    """
    with locked(CACHE / "lock" / f"image-{product.name}", f"image {product.name}"):
        base = base_image()
        key = fingerprint(product.dockerfile, product.requirements, product.package, base)
        keyed = f"{product.reference.rsplit(':', 1)[0]}:{key}"
        if not has_image(keyed):
            need_space(3, f"the image {product.reference}")
            build(keyed, _context(product), file=product.dockerfile, arguments=[f"BASE={base}"])
            _drop_old(keyed)
        docker("tag", keyed, product.reference)
        yield


def _drop_old(keyed: str) -> None:
    """Forget all but the newest builds of an image (Docker lists newest first)."""
    repository = keyed.rsplit(":", 1)[0]
    tags = docker("images", "--format", "{{.Repository}}:{{.Tag}}", repository).split()
    old = [tag for tag in tags if not tag.endswith((":dev", keyed))][KEPT - 1 :]
    for tag in old:
        docker("rmi", "--no-prune", tag)


def base_image() -> str:
    """The reference of a Python 3.11 image in the local Docker: the stock one, or one made from Debian packages."""
    own = image_of("python", PYTHON_PACKAGES)
    for reference in (STOCK_BASE, own):
        if has_image(reference):
            return reference
    with progress("asking for the Python image"):
        answers = succeeds(["docker", "manifest", "inspect", STOCK_BASE], timeout=20)
    if answers and pull(STOCK_BASE, PULL_S):
        return STOCK_BASE
    return python_base()


def _context(product: Product) -> Path:
    """A folder with only what the Dockerfile copies, so that sending it takes no time."""
    context = CACHE / "images" / f"{product.name}-{fingerprint(str(ROOT))}"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    shutil.copy2(product.requirements, context / "requirements.txt")
    shutil.copytree(product.package, context / product.package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (context / "wheels").mkdir()
    for wheel in sorted(wheels(product.requirements).glob("*.whl")):
        (context / "wheels" / wheel.name).hardlink_to(wheel)
    return context


def wheels(requirements: Path) -> Path:
    """A folder with the wheels a lock file pins, for Linux and Python 3.11; downloaded once, hashes checked."""
    folder = CACHE / "wheels" / f"{requirements.stem}-{fingerprint(requirements, architecture())}"
    if folder.exists():
        return folder
    say(f"downloading the packages of {requirements.name} (once)")
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    command: list[str | Path] = [_pip(), "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes"]
    shutil.rmtree(part, ignore_errors=True)
    try:
        logged(
            f"downloading the packages of {requirements.name}",
            [*command, *_target(), "--dest", part, "--requirement", requirements],
            LOGS / f"wheels-{requirements.stem}.log",
            fix="is the Python package index reachable?",
        )
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _target() -> list[str]:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[architecture()]
    versions = ["_2_17", "2014", "_2_24", "_2_26", "_2_27", "_2_28", "_2_31", "_2_34", "_2_35", "_2_36"]
    platforms = [f"--platform=manylinux{version}_{machine}" for version in versions]
    return ["--implementation=cp", "--python-version=3.11", *platforms]


def _pip() -> Path:
    """A Python that has pip, in an environment of its own (Debian's python3 comes without)."""
    folder = CACHE / "pip"
    python = folder / "bin" / "python"
    if succeeds([python, "-m", "pip", "--version"]):
        return python
    shutil.rmtree(folder, ignore_errors=True)
    create: list[str | Path] = [sys.executable, "-m", "venv", folder]
    if subprocess.run(create, capture_output=True, check=False).returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        apt_install("python3-venv")
        logged("making a Python environment for pip", create, LOGS / "pip-venv.log")
    return python
