"""The operator as a process on a real API server: watching, leading, ending, and leaving things alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.apiserver import ApiServer
from tests.integration.rest import Refused, Rest

ROOT = Path(__file__).parents[2]
IDLE_S = 8.0


class Operator:
    """One running process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def gauge(self, name: str) -> float | None:
        match = re.search(rf"^{name} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(match.group(1)) if match else None

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def text(self) -> str:
        return self.log.read_text()


def wait(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Return the first true value of the condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return value


@contextmanager
def operator(server: ApiServer, folder: Path, namespace: str, name: str = "a") -> Iterator[Operator]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator" / "src"),
        "KUBECONFIG": str(server.kubeconfig),
        "PENSTOCK_RUNTIME_IMAGE": "penstock.local/runtime:dev",
        "PENSTOCK_NAMESPACES": namespace,
        "PENSTOCK_LEASE_NAMESPACE": namespace,
        "PENSTOCK_HTTP_PORT": str(port),
        "PENSTOCK_IDENTITY": name,
    }
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", "penstock"], env=environ, stdout=output, stderr=output
        )
    running = Operator(process, port, log)
    try:
        wait(lambda: running.get("/readyz")[0] == 200, f"the operator is ready: {log}")
        yield running
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def start(api_server: ApiServer, tmp_path: Path, namespace: str) -> Iterator[Callable[[str], Operator]]:
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(operator(api_server, tmp_path, namespace, name))


def models(namespace: str) -> str:
    return f"/apis/penstock.dev/v1alpha1/namespaces/{namespace}/modeldeployments"


def lease(rest: Rest, namespace: str) -> dict[str, Any]:
    try:
        spec: dict[str, Any] = rest.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/penstock")["spec"]
    except Refused:
        return {}
    return spec


def model(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "http://models.example/m.onnx"}},
    }


def leads(rest: Rest, namespace: str, name: str) -> bool:
    return str(lease(rest, namespace).get("holderIdentity", "")).startswith(f"{name}_")


def status(rest: Rest, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = rest.get(f"{models(namespace)}/{name}").get("status", {})
    return found


def test_a_new_object_is_seen_at_once_and_then_left_alone(
    start: Callable[[str], Operator], rest: Rest, namespace: str
) -> None:
    running = start("a")
    wait(lambda: leads(rest, namespace, "a"), "it leads")
    for i in range(3):
        rest.create(models(namespace), model(f"m{i}"))
    began = time.monotonic()
    wait(lambda: all(status(rest, namespace, f"m{i}") for i in range(3)), "each has a status")
    assert time.monotonic() - began < 30, "by a watch: the next listing comes after five minutes"
    assert running.gauge("penstock_leader") == 1
    # What the first reconcile wrote comes back as events, and these must not write again.
    wait(lambda: running.gauge("penstock_workqueue_depth") == 0, "the queue is empty")
    time.sleep(1)
    before = writes(running)
    versions = [rest.get(f"{models(namespace)}/m{i}")["metadata"]["resourceVersion"] for i in range(3)]
    time.sleep(IDLE_S)
    after = writes(running)
    assert {key: count for key, count in after.items() if count != before.get(key)}.keys() == {("update", "Lease")}
    assert versions == [rest.get(f"{models(namespace)}/m{i}")["metadata"]["resourceVersion"] for i in range(3)]
    assert "Traceback" not in running.text()


def writes(running: Operator) -> dict[tuple[str, str], float]:
    """Requests other than reads, by verb and kind."""
    out: dict[tuple[str, str], float] = {}
    pattern = r'^penstock_kube_requests_total{code="[^"]*",kind="([^"]*)",verb="([^"]*)"} (\S+)$'
    for kind, verb, count in re.findall(pattern, running.get("/metrics")[1], re.MULTILINE):
        if verb not in ("get", "list"):
            out[verb, kind] = out.get((verb, kind), 0.0) + float(count)
    return out


def test_it_writes_nothing_to_objects_but_their_status(
    start: Callable[[str], Operator], rest: Rest, namespace: str
) -> None:
    start("a")
    made = rest.create(models(namespace), model("m"))
    wait(lambda: status(rest, namespace, "m"), "it has a status")
    live = rest.get(f"{models(namespace)}/m")
    assert live["spec"] == made["spec"]
    meta = {k: v for k, v in live["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    assert meta == {k: v for k, v in made["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    managers = {(m["manager"], m.get("subresource", "")) for m in live["metadata"]["managedFields"]}
    assert {m for m in managers if m[1] != "status"} == {
        (m["manager"], m.get("subresource", "")) for m in made["metadata"]["managedFields"]
    }


def reconciles(running: Operator) -> float:
    """Reconciles that have ended."""
    return running.gauge("penstock_reconcile_duration_seconds_count") or 0.0


def test_a_change_of_a_labelled_child_wakes_its_model_and_no_other_does(
    start: Callable[[str], Operator], rest: Rest, namespace: str
) -> None:
    running = start("a")
    wait(lambda: leads(rest, namespace, "a"), "it leads")
    for kind in ("ConfigMap", "Service", "Deployment", "Pod"):
        before = reconciles(running)
        path, manifest = child(kind, namespace)
        rest.create(path, {**manifest, "metadata": {"name": "stranger"}})
        rest.create(path, {**manifest, "metadata": {"name": "child", "labels": {"penstock.dev/model": "m"}}})
        wait(partial(reconciled, running, before + 1), f"the model of the new {kind} was looked at")
        rest.patch(f"{path}/stranger", {"metadata": {"annotations": {"a": "1"}}})
        rest.patch(f"{path}/child", {"metadata": {"annotations": {"a": "1"}}})
        wait(partial(reconciled, running, before + 2), f"the model of the changed {kind} was looked at")


def reconciled(running: Operator, count: float) -> bool:
    """Whether that many reconciles have ended, and no more."""
    return reconciles(running) == count


def child(kind: str, namespace: str) -> tuple[str, dict[str, Any]]:
    """The collection's path and a manifest without metadata."""
    pod = {"containers": [{"name": "server", "image": "example.com/server:1"}]}
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "ConfigMap": ("api/v1", "configmaps", {"data": {"a": "b"}}),
        "Service": ("api/v1", "services", {"spec": {"ports": [{"port": 80}]}}),
        "Pod": ("api/v1", "pods", {"spec": pod}),
        "Deployment": (
            "apis/apps/v1",
            "deployments",
            {"spec": {"selector": {"matchLabels": labels}, "template": template}},
        ),
    }
    api, plural, body = kinds[kind]
    manifest = {"apiVersion": api.split("/", 1)[1], "kind": kind, **body}
    return f"/{api}/namespaces/{namespace}/{plural}", manifest


def test_on_sigterm_it_gives_the_lease_to_the_other_one(
    start: Callable[[str], Operator], rest: Rest, namespace: str
) -> None:
    first = start("a")
    wait(lambda: leads(rest, namespace, "a"), "the first leads")
    second = start("b")
    assert second.gauge("penstock_leader") == 0
    assert first.stop() == 0
    wait(lambda: leads(rest, namespace, "b"), "the second leads, without waiting for the lease to expire", 12)
    rest.create(models(namespace), model("m"))
    wait(lambda: status(rest, namespace, "m"), "the second works")
    assert second.stop() == 0
    assert lease(rest, namespace)["holderIdentity"] == ""
    for running in (first, second):
        assert "Traceback" not in running.text()


def test_it_ends_when_the_lease_is_taken_away(start: Callable[[str], Operator], rest: Rest, namespace: str) -> None:
    running = start("a")
    wait(lambda: leads(rest, namespace, "a"), "it leads")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/penstock"
    rest.patch(path, {"spec": {"holderIdentity": "somebody"}})
    assert running.process.wait(timeout=30) == 1
    assert "is held by somebody" in running.text()


def test_without_an_api_server_it_says_so(tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator" / "src"),
        "KUBECONFIG": str(tmp_path / "absent"),
        "PENSTOCK_RUNTIME_IMAGE": "penstock.local/runtime:dev",
    }
    done = subprocess.run([sys.executable, "-m", "penstock"], env=environ, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "no way to an API server" in done.stderr.decode()
    assert "Set KUBECONFIG" in done.stderr.decode()
