"""Where things are kept: the cache folder, and the state of this checkout's cluster."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from e2e.cluster.console import Problem

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
LOGS = CACHE / "log"


def cluster_name() -> str:
    """The cluster's name: CLUSTER where set, else one that belongs to this checkout's path."""
    return os.environ.get("CLUSTER") or "penstock-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]


def foreign() -> bool:
    """Whether the user's own current context is to be used (CLUSTER=current)."""
    return cluster_name() == "current"


def state() -> Path:
    """The folder with this cluster's kubeconfig and remembered ports; `up` makes it."""
    return CACHE / "clusters" / cluster_name()


def kubeconfig() -> Path:
    """The kubeconfig of this cluster alone."""
    return state() / "kubeconfig"


def fingerprint(*parts: str | bytes | Path) -> str:
    """12 hex digits that change with any part; a path stands for its file's or tree's content."""
    total = hashlib.sha256()
    for part in parts:
        for chunk in _content(part):
            total.update(hashlib.sha256(chunk).digest())
    return total.hexdigest()[:12]


def _content(part: str | bytes | Path) -> Iterable[bytes]:
    match part:
        case str():
            yield part.encode()
        case bytes():
            yield part
        case Path() if part.is_dir():
            for path in sorted(part.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield str(path.relative_to(part)).encode()
                    yield path.read_bytes()
        case Path():
            yield part.read_bytes()


def need_space(gib: float, purpose: str) -> None:
    """Problem where the cache's disk has less than `gib` GiB free."""
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free / 2**30
    if free < gib:
        raise Problem(
            f"disk full: {purpose} needs {gib:.0f} GiB in {CACHE}, {free:.1f} GiB are free",
            "free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
        )
