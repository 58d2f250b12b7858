"""A rendered chart and ways to look into it, and the chart's scripts as modules."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]

Manifest = dict[str, Any]
Render = Callable[..., "Rendered"]


class ChartRefused(Exception):  # noqa: N818 - what Helm did
    """Helm did not render the chart; the text is what Helm said."""


class Rendered:
    """The manifests of one release."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def kinds(self) -> set[str]:
        """The kinds that occur."""
        return {m["kind"] for m in self.manifests}

    def all(self, kind: str) -> list[Manifest]:
        """All of one kind."""
        return [m for m in self.manifests if m["kind"] == kind]

    def one(self, kind: str, name: str = "penstock") -> Manifest:
        """The one of that kind and name."""
        found = [m for m in self.all(kind) if m["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {name}: {len(found)} found"
        return found[0]

    def pod(self) -> Manifest:
        """Spec of the operator's pods."""
        spec: Manifest = self.one("Deployment")["spec"]["template"]["spec"]
        return spec

    def env(self) -> dict[str, Any]:
        """Environment of the operator, by name: the value, or where it comes from."""
        return {e["name"]: e.get("value", e.get("valueFrom")) for e in self.pod()["containers"][0]["env"]}

    def runtime(self, name: str) -> Manifest:
        """A ClusterModelRuntime that the operator's pod will apply."""
        runtime: Manifest = json.loads(self.one("ConfigMap", "penstock-runtimes")["data"][f"{name}.json"])
        return runtime


def script(path: Path) -> ModuleType:
    """A script as a module."""
    loader = SourceFileLoader(f"chart_{path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
