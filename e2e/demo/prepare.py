"""Everything before the story: cluster, add-ons, images, models, the operator by its chart."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import addons, images, lifecycle, load, ports
from e2e.cluster.console import Problem, logged, progress, say
from e2e.cluster.kube import kubectl
from e2e.cluster.places import ROOT, cluster_name, foreign, kubeconfig
from e2e.cluster.tools import tool
from e2e.demo import models
from e2e.demo.settings import (
    DEMO_LOGS,
    FEEDBACK_NODE_PORT,
    FEEDBACK_SERVICE,
    MODEL,
    NAMESPACE,
    OPERATOR_NAMESPACE,
    PROMETHEUS_URL,
    RELEASE,
    SCRAPE_SECONDS,
)

ADDONS = ("gateway", "prometheus", "files")
VANISH_SECONDS = 90.0

FEEDBACK = f"""
apiVersion: v1
kind: Service
metadata: {{name: {FEEDBACK_SERVICE}}}
spec:
  type: NodePort
  selector: {{penstock.dev/model: {MODEL}, penstock.dev/component: server}}
  ports: [{{name: admin, port: 9091, targetPort: admin, nodePort: {FEEDBACK_NODE_PORT}}}]
"""


def everything() -> Path:
    """All of it, in order, each step idempotent; the folder with the models. Problem where a step fails."""
    if foreign():
        raise Problem(
            "the demo makes a cluster of its own, and CLUSTER=current asks for yours",
            "leave CLUSTER out",
        )
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("cluster", lifecycle.up),
        ("images of the operator and the model server", _images),
        *((f"add-on {name}", lambda name=name: addons.install(name)) for name in ADDONS),
        ("operator, by its Helm chart", _operator),
        ("models: trained, and put into the file server", put_models),
    )
    for number, (title, step) in enumerate(steps, 1):
        started = time.monotonic()
        say(f"[{number}/{len(steps)}] {title}")
        step()
        say(f"[{number}/{len(steps)}] {title}: {time.monotonic() - started:.0f} s")
    return models.folder()


def _images() -> None:
    load.load([images.build_product(name) for name in images.PRODUCTS])


def _operator() -> None:
    look = f"look with: kubectl --kubeconfig {kubeconfig()} -n {OPERATOR_NAMESPACE} get pods"
    logged(
        "installing the operator",
        [
            *(tool("helm"), "--kubeconfig", kubeconfig()),
            *("upgrade", "--install", RELEASE, ROOT / "charts" / "penstock"),
            *("--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"),
            *("--set", f"prometheus.url={PROMETHEUS_URL}", "--set", f"scrapeInterval={SCRAPE_SECONDS}"),
        ],
        DEMO_LOGS / "helm.log",
        fix=look,
    )
    # An image of the same name may be new: the pods take it up only when they start.
    where = ("--namespace", OPERATOR_NAMESPACE, "--selector", "app.kubernetes.io/name=penstock")
    kubectl("rollout", "restart", "deployment", *where)
    kubectl("rollout", "status", "deployment", *where, "--timeout=120s", timeout=150)


def put_models() -> Path:
    """The models, trained where they are not yet, and brought to where the cluster fetches them; their folder here."""
    trained = models.folder()
    for model in ("iris", MODEL):
        addons.put("files", trained / model, model)
    return trained


def stage() -> None:
    """An empty stage for the story: what an earlier run left behind goes, feedback gets its way in."""
    kubectl("apply", "--filename=-", stdin=f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}")
    kubectl("delete", "modeldeployments", "--namespace", NAMESPACE, "--all", "--ignore-not-found", timeout=90)
    kinds = "deployments,replicasets,pods,controllerrevisions,httproutes,rolloutanalyses"
    with progress("waiting for the end of an earlier run's objects") as step:
        while left := kubectl("get", kinds, "--namespace", NAMESPACE, "--output=name"):
            if step.elapsed > VANISH_SECONDS:
                raise Problem(
                    f"objects of an earlier run do not go: {left.splitlines()[0]}",
                    f"kubectl --kubeconfig {kubeconfig()} delete namespace {NAMESPACE}, then run the demo again",
                )
            step.tick()
            time.sleep(0.5)
    kubectl("apply", "--namespace", NAMESPACE, "--filename=-", stdin=FEEDBACK)


def address(name: str) -> str:
    """The URL on this machine of the gateway, of Prometheus or of feedback."""
    known = ports.ports()
    if name not in known:
        raise Problem(f"cluster {cluster_name()} was made without a port for {name}", "run make down, then make demo")
    return f"http://127.0.0.1:{known[name]}"
