"""Makes the cluster, finds it again, and takes it away."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from string import Template

from e2e.cluster import kube, network, ports
from e2e.cluster.console import Problem, locked, logged, progress, say, succeeds
from e2e.cluster.engine import answers as docker_answers
from e2e.cluster.engine import docker, ensure_engine, stop_engine
from e2e.cluster.kube import kubectl
from e2e.cluster.node_image import node_image
from e2e.cluster.places import CACHE, HERE, LOGS, cluster_name, fingerprint, foreign, kubeconfig, need_space, state
from e2e.cluster.tools import tool

READY_S = 120.0  # seconds nodes and DNS may take after the control plane answers
RESTART_S = 60.0  # seconds a stopped cluster may take to answer again


def up() -> None:
    """Make the cluster answer with every node ready and DNS working; cheap where it already does."""
    state().mkdir(parents=True, exist_ok=True)
    if foreign():
        kube.copy_users_context()
        if not kube.answers():
            raise Problem("CLUSTER=current: that cluster does not answer", "kubectl get --raw=/readyz")
        return
    ensure_engine()
    # first, so that no wait for the cluster has a build inside
    for name in ("kind", "kubectl"):
        tool(name)
    with locked(CACHE / "lock" / f"up-{cluster_name()}", f"making {cluster_name()}"):
        if not _revive():
            _create()
        _finish()


def down(engine: bool) -> None:
    """Remove the cluster; with `engine` also end the Docker that `up` started. Caches stay."""
    if foreign():
        raise Problem("CLUSTER=current: this cluster is not ours to remove")
    if docker_answers():
        _remove()
    kubeconfig().unlink(missing_ok=True)
    (state() / "made-from").unlink(missing_ok=True)
    if engine:
        stop_engine()


def containers() -> list[str]:
    """The names of the cluster's node containers, running or not."""
    return docker(
        "ps", "--all", "--filter", f"label=io.x-k8s.kind.cluster={cluster_name()}", "--format", "{{.Names}}"
    ).split()


def _remove() -> None:
    if containers():
        logged(
            f"removing cluster {cluster_name()}",
            [tool("kind"), "delete", "cluster", "--name", cluster_name(), "--kubeconfig", kubeconfig()],
            LOGS / "kind-delete.log",
        )


def _made_from() -> str:
    return fingerprint(HERE / "kind.yaml", HERE / "node", HERE / "tools" / "kubernetes" / "go.mod")


def _revive() -> bool:
    """Whether the cluster exists and answers, after starting its containers where they were stopped."""
    names = containers()
    if not names:
        return False
    record = state() / "made-from"
    if not record.exists():
        say(f"cluster {cluster_name()} was left half made: making it anew")
        return False
    if record.read_text() != _made_from():
        say("note: the cluster was made from an earlier configuration; e2e/cluster/down, then up, renews it")
    stopped = docker("inspect", "--format", "{{if not .State.Running}}{{.Name}}{{end}}", *names).split()
    if stopped:
        addresses = _remembered_addresses()
        # Docker gives the lowest free address to whoever starts first, and the nodes must get theirs back
        for name in sorted((one.lstrip("/") for one in stopped), key=lambda one: addresses.get(one, (0,))):
            _start(name)
    if _wait("the cluster's API server", kube.answers, RESTART_S if stopped else 20.0):
        return True
    say(f"cluster {cluster_name()} does not answer: making it anew")
    return False


def _start(node: str) -> None:
    try:
        docker("start", node)
    except Problem as problem:
        raise Problem(
            f"the stopped cluster {cluster_name()} does not start: {problem.what}",
            "if a port of it is taken, free it; else e2e/cluster/down, then up makes it anew with other ports",
        ) from None


def _remembered_addresses() -> dict[str, tuple[int, ...]]:
    file = state() / "addresses"
    rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return {name: tuple(int(part) for part in address.split(".")) for name, address in rows}


def _create() -> None:
    need_space(6, "the cluster")
    image = node_image()
    _remove()
    config = state() / "kind.yaml"
    config.write_text(Template((HERE / "kind.yaml").read_text()).substitute(_ports()))
    say(f"creating cluster {cluster_name()}")
    create: list[str | Path] = [
        tool("kind"),
        "create",
        "cluster",
        "--name",
        cluster_name(),
        "--image",
        image,
        "--retain",
    ]
    log = LOGS / f"kind-{cluster_name()}.log"
    try:
        logged(
            f"creating cluster {cluster_name()}",
            [*create, "--config", config, "--kubeconfig", kubeconfig(), "--verbosity", "1"],
            log,
            fix="e2e/cluster/up again makes it from the start",
        )
    except BaseException:
        _keep_node_logs(log.with_suffix(".nodes.log"))
        _remove()
        raise
    (state() / "made-from").write_text(_made_from())


def _ports() -> dict[str, str]:
    return {name: str(port) for name, port in ports.choose().items()}


def _finish() -> None:
    """Network, then readiness. kube-proxy first: CoreDNS started before Services work retries only late."""
    known: list[network.Node] = []

    def assigned() -> bool:
        known[:] = network.nodes()
        return len(known) == len(containers()) and all(node.subnet for node in known)

    _must("a pod subnet for every node", assigned, READY_S)
    _must("kube-proxy", lambda: _available("daemonset", "kube-proxy"), READY_S)
    network.connect(known)
    (state() / "addresses").write_text("".join(f"{node.name} {node.address}\n" for node in known))
    _must("Services on every node", lambda: all(_services_work(node.name) for node in known), READY_S)
    # two small nodes: the control plane takes pods too
    for node in known:
        taint = "node-role.kubernetes.io/control-plane"
        if taint in kubectl("get", "node", node.name, "--output=jsonpath={.spec.taints[*].key}"):
            kubectl("taint", "node", node.name, f"{taint}-")
    _must("all nodes ready", _nodes_ready, READY_S)
    _must("cluster DNS", lambda: _available("deployment", "coredns") and _dns_answers(known[-1].name), READY_S)


def _services_work(node: str) -> bool:
    """Whether the node's kube-proxy leads a Service's address to the API server (its pods have no readiness probe)."""
    service = "https://10.96.0.1/livez"
    check = ["curl", "--silent", "--max-time", "2", "--cacert", "/etc/kubernetes/pki/ca.crt", "--output", "/dev/null"]
    return succeeds(["docker", "exec", node, *check, service], timeout=10)


def _dns_answers(node: str) -> bool:
    """Whether CoreDNS answers by its Service: after a restart the pods' status says ready before they are."""
    check = ["curl", "--silent", "--fail", "--max-time", "2", "--output", "/dev/null", "http://10.96.0.10:9153/metrics"]
    return succeeds(["docker", "exec", node, *check], timeout=10)


def _nodes_ready() -> bool:
    items = json.loads(kubectl("get", "nodes", "--output=json"))["items"]
    return all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"]) for item in items
    )


def _available(kind: str, name: str) -> bool:
    words: list[str | Path] = [tool("kubectl"), "--kubeconfig", kubeconfig(), "--namespace=kube-system"]
    return succeeds([*words, "rollout", "status", f"{kind}/{name}", "--timeout=5s"], timeout=20)


def _must(what: str, condition: Callable[[], bool], seconds: float) -> None:
    if not _wait(what, condition, seconds):
        raise Problem(
            f"{what} did not come within {seconds:.0f} s",
            f"look with: kubectl --kubeconfig {kubeconfig()} get pods -A; e2e/cluster/down and up start afresh",
        )


def _wait(what: str, condition: Callable[[], bool], seconds: float) -> bool:
    with progress(f"waiting for {what}") as step:
        while not condition():
            if step.elapsed > seconds:
                return False
            step.tick()
            time.sleep(0.3)
    return True


def _keep_node_logs(file: Path) -> None:
    """What the nodes of a failed creation said last, for whoever looks into it."""
    with file.open("w") as out:
        for name in containers():
            out.write(f"== {name}\n")
            out.flush()
            for command in (["docker", "logs", name], ["docker", "exec", name, "tail", "-n50", "/var/log/kubelet.log"]):
                subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
