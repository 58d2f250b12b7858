"""The demo's models: trained once for each state of the training scripts, then taken from the cache."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from e2e.cluster.console import logged
from e2e.cluster.places import ROOT, fingerprint, need_space
from e2e.demo.settings import DEMO_CACHE, DEMO_LOGS

SCRIPTS = ROOT / "examples"
LIBRARIES = ("scikit-learn", "skl2onnx", "onnx", "numpy")


def folder() -> Path:
    """The folder with digits/ and iris/, trained first where it is missing. Problem where training fails."""
    scripts = sorted(SCRIPTS.rglob("*.py"))
    ready = DEMO_CACHE / "models" / fingerprint(*scripts, *(f"{name} {version(name)}" for name in LIBRARIES))
    if ready.exists():
        return ready
    need_space(0.5, "the models")
    part = ready.with_name(f".{ready.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for name, title in (("iris", "training iris"), ("digits", "training six versions of digits")):
            logged(
                title,
                [sys.executable, "-m", f"examples.{name}.train", "--out", part],
                DEMO_LOGS / f"train-{name}.log",
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT)},
                fix=f"try it by hand: python -m examples.{name}.train",
            )
        shutil.rmtree(ready, ignore_errors=True)
        part.rename(ready)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ready


def summary() -> str:
    """What the training said about each version, a line each; empty where it ran in another checkout."""
    log = DEMO_LOGS / "train-digits.log"
    return log.read_text().strip() if log.exists() else ""
