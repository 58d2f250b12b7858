"""The chart, rendered by the real Helm; where there is none, e2e/cluster builds it once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart.rendering import ROOT, ChartRefused, Render, Rendered

CHART = ROOT / "charts" / "penstock"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
KUBERNETES = "1.35.0"


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of a Helm."""
    built = CACHE / "bin" / "helm"
    if built.exists():
        return str(built)
    if found := shutil.which("helm"):
        return found
    done = subprocess.run([ROOT / "e2e/cluster/tool", "helm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"Helm could not be built: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def render(helm: str, tmp_path: Path) -> Render:
    """Renders the chart with these values; raises ChartRefused with Helm's words."""

    def rendered(**values: Any) -> Rendered:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        command = [helm, "template", "penstock", str(CHART), "--namespace", "penstock-system"]
        command += ["--kube-version", KUBERNETES, "--values", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChartRefused(done.stderr)
        return Rendered([m for m in yaml.safe_load_all(done.stdout) if m])

    return rendered
