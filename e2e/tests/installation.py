"""The operator as it is installed: its Helm release, its pods, and the Prometheus it reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster.console import Problem
from e2e.cluster.engine import docker
from e2e.tests.cluster import Cluster, Object
from e2e.tests.expectation import Expectation

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "penstock"
RELEASE, NAMESPACE = "penstock", "penstock-system"
SELECTOR = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator"
OPERATOR_IMAGE, RUNTIME_IMAGE = "penstock.local/operator:dev", "penstock.local/runtime:dev"
HELM_SECONDS = 180


@dataclass(frozen=True)
class Prometheus:
    """The Deployment that the operator reads counters from."""

    namespace: str
    name: str
    url: str


def image_id(reference: str) -> str:
    """What identifies an image's content; its reference where the local Docker does not know it."""
    try:
        return docker("image", "inspect", "--format", "{{.Id}}", reference)
    except Problem:
        return reference


class Installation:
    """One Helm release. Settings are given as the chart's values."""

    def __init__(self, cluster: Cluster, helm: Path, prometheus: Prometheus, scrape_seconds: int) -> None:
        """`scrape_seconds`: how often the Prometheus scrapes model pods."""
        self._cluster, self._helm, self.prometheus = cluster, helm, prometheus
        self.scrape_seconds = scrape_seconds

    def usual(self) -> dict[str, Any]:
        """The values that all stories but a few run with."""
        return {
            "prometheus": {"url": self.prometheus.url},
            "scrapeInterval": self.scrape_seconds,
            # the tag is always the same: another image must mean other pods
            "podAnnotations": {"penstock.dev/e2e-image": image_id(OPERATOR_IMAGE)},
        }

    def uninstall(self) -> None:
        """Take the release away and wait until its pods are gone. The CRDs stay."""
        self._run("uninstall", RELEASE, "--wait", "--ignore-not-found")

    def install(self, values: Mapping[str, Any]) -> None:
        """Install or upgrade to exactly these values over the chart's own, and wait until the operator is ready."""
        self._run(
            "upgrade", "--install", RELEASE, CHART, "--create-namespace", "--reset-values", "--values", "-", "--wait",
            stdin=json.dumps(values),
        )  # fmt: skip

    def _run(self, *words: str | Path, stdin: str = "") -> None:
        where = ["--namespace", NAMESPACE, "--timeout", f"{HELM_SECONDS}s", "--kubeconfig", self._cluster.kubeconfig]
        command = [str(word) for word in (self._helm, *words, *where)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"helm {words[0]} failed: {done.stderr.strip()}")

    @contextmanager
    def with_values(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Other values for a while."""
        try:
            self.install(values)
            yield
        finally:
            self.install(self.usual())

    def pods(self) -> list[Object]:
        """The operator's pods that are not on their way out."""
        found = self._cluster.all("Pod", NAMESPACE, SELECTOR)
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def is_ready(self) -> bool:
        """Whether an operator is there and ready."""
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in self.pods()
            for condition in pod.get("status", {}).get("conditions", ())
        )

    def delete_pods(self) -> None:
        """`kubectl delete pod` of every operator pod."""
        for pod in self.pods():
            self._cluster.delete("Pod", NAMESPACE, pod["metadata"]["name"])

    def kill_pods(self, only: str = "") -> None:
        """The operator's pods, or only this one, are gone at once, with no time for a last word."""
        for pod in self.pods():
            if only in ("", pod["metadata"]["name"]):
                self._cluster.delete("Pod", NAMESPACE, pod["metadata"]["name"], grace_seconds=0)

    def leader(self) -> str:
        """Name of the pod that holds the Lease; RuntimeError where none does."""
        holders = [lease["spec"].get("holderIdentity") or "" for lease in self._cluster.all("Lease", NAMESPACE)]
        for pod in self.pods():
            name: str = pod["metadata"]["name"]
            if any(name in holder for holder in holders):
                return name
        raise RuntimeError(f"no operator pod leads: the Leases are held by {holders}")

    def scale_prometheus(self, replicas: int) -> None:
        """0 takes the Prometheus away."""
        change = {"spec": {"replicas": replicas}}
        self._cluster.patch("Deployment", self.prometheus.namespace, self.prometheus.name, change, "scale")

    def restore_prometheus(self) -> None:
        """Scale it to 1, and wait until it is ready."""
        self.scale_prometheus(1)

        def problem() -> str:
            live = self._cluster.get("Deployment", self.prometheus.namespace, self.prometheus.name) or {}
            return "" if live.get("status", {}).get("readyReplicas") else "no pod of it is ready"

        Expectation("Prometheus is back", problem).within(60)
