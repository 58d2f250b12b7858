"""What the demo's parts agree on: names, addresses, times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.places import CACHE, LOGS

MODEL = "digits"
NAMESPACE = "demo"
OPERATOR_NAMESPACE = "penstock-system"
RELEASE = "penstock"
HOST = "digits.example.com"
FEEDBACK_SERVICE = "digits-feedback"
FEEDBACK_NODE_PORT = 30091
PROMETHEUS_URL = "http://prometheus.monitoring.svc:9090"
SCRAPE_SECONDS = 5

FILES_URL = "http://files.models.svc"
DEMO_CACHE = CACHE / "demo"
DEMO_LOGS = LOGS / "demo"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for on the command line."""

    rate: float = 400.0
    """Requests a second."""
    label_delay: float = 2.0
    """Seconds until the true label of a prediction is known."""
    plain: bool = False
    """Plain lines instead of the live view, also on a terminal."""
    story_only: bool = False
    """The cluster, the operator and the models are there already: only play the story."""
    patience: float = 150.0
    """Seconds that one chapter may take before the demo gives up."""
    plot: Path = Path("penstock-demo.png")


def uri_of(version: str) -> str:
    """Where the cluster finds a version of the digits model."""
    return f"{FILES_URL}/{MODEL}/{version}/model.onnx"


def version_of(uri: str | None) -> str:
    """The version in a uri that `uri_of` made; empty for any other."""
    parts = (uri or "").split("/")
    return parts[-2] if len(parts) > 2 and uri == uri_of(parts[-2]) else ""
