"""Where and with what it was measured."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.server.cases import KSERVE, MLSERVER
from bench.server.processes import CLIENT_CORE, SERVER_CORE
from e2e.cluster.console import Problem, output
from e2e.cluster.engine import apt_install
from e2e.cluster.places import ROOT

_SHARED = ("onnxruntime", "numpy", "orjson", "uvicorn", "uvloop", "httptools", "grpcio")
_DEBIAN = {"wrk": "wrk", "h2load": "nghttp2-client"}


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, and the versions of all that is measured or measures."""

    date: str
    commit: str
    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    versions: dict[str, str]


def need_tools() -> None:
    """Install what generates load where it is missing; Problem where that cannot be, or there is one core only."""
    allowed = os.sched_getaffinity(0)
    if not {SERVER_CORE, CLIENT_CORE} <= allowed:
        raise Problem(
            f"the benchmark needs the cores {SERVER_CORE} and {CLIENT_CORE}, and may use {sorted(allowed)}",
            "run it on a machine with two cores or more, or give the container both",
        )
    missing = [package for command, package in _DEBIAN.items() if shutil.which(command) is None]
    if missing:
        apt_install(*missing)


def look() -> Host:
    """Return what this machine is."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = {name: version(name) for name in _SHARED}
    versions["MLServer"] = pinned_version((ROOT / f"requirements/peer-{MLSERVER}.txt").read_text(), "mlserver")
    versions["KServe SDK"] = pinned_version((ROOT / f"requirements/peer-{KSERVE}.txt").read_text(), "kserve")
    versions["wrk"] = _said(["wrk", "-v"], r"wrk \S*?([\d.]+\S*)")
    versions["h2load"] = _said(["h2load", "--version"], r"nghttp2/(\S+)")
    return Host(
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        commit=_commit(),
        cpu=cpu[1] if cpu else platform.processor() or "unknown",
        cores=os.cpu_count() or 0,
        memory_gb=round(pages / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions,
    )


def pinned_version(lock: str, package: str) -> str:
    """Return the version of `package` that the text of a lock file pins, "?" if none."""
    match = re.search(rf"^{re.escape(package)}==([^ \\\n]+)", lock, re.MULTILINE)
    return match[1] if match else "?"


def _commit() -> str:
    try:
        changed = output(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"])
        return output(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"]) + (" with changes" if changed else "")
    except Problem:
        return "unknown"


def _said(words: list[str], pattern: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else "?"
