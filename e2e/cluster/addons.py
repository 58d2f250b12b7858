"""What stands beside the product in a test cluster: a gateway, a Prometheus, and places models come from."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import kube
from e2e.cluster.archive import Image, write_archive
from e2e.cluster.console import Problem, locked, progress
from e2e.cluster.engine import docker, ensure_engine
from e2e.cluster.images import base_image
from e2e.cluster.kube import kubectl
from e2e.cluster.load import load, load_archive
from e2e.cluster.places import CACHE, HERE, cluster_name, fingerprint, kubeconfig
from e2e.cluster.tools import module_folder, tool

READY_S = 180
PYTHON = "penstock.local/python:dev"


def install(name: str) -> None:
    """Install one add-on and wait until it works; doing it again changes nothing. Problem for unknown names."""
    if name not in ADDONS:
        raise Problem(f"no add-on is called {name!r}", f"use one of: {', '.join(sorted(ADDONS))}")
    if not kube.answers():
        raise Problem(f"cluster {cluster_name()} does not answer", "run e2e/cluster/up")
    ensure_engine()
    ADDONS[name]()


def put(place: str, source: Path, name: str) -> None:
    """Copy a file, or a folder's files, into the add-on `files` or `s3`; each appears whole or not at all.

    `name` is the path under which it is served; Problem where the copy fails.
    """
    if place not in ("files", "s3"):
        raise Problem(f"no place is called {place!r}", "use files or s3")
    if not source.exists():
        raise Problem(f"{source} does not exist")
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    for file in files:
        target = f"/data/{name.strip('/')}" + (f"/{file.relative_to(source)}" if source.is_dir() else "")
        script = 'mkdir -p "$(dirname "$0")" && cat > "$0.part" && mv "$0.part" "$0"'
        words = [tool("kubectl"), "--kubeconfig", kubeconfig(), "--namespace=models", "exec", "--stdin"]
        words += [f"deployment/{place}", "--container=shell", "--", "sh", "-c", script, target]
        with file.open("rb") as stream:
            done = subprocess.run([str(w) for w in words], stdin=stream, capture_output=True, check=False)
        if done.returncode != 0:
            last = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
            raise Problem(f"copying {file} into {place} failed: {last[-1]}", f"e2e/cluster/addon {place}")


def _gateway() -> None:
    image = _static("traefik")
    crds = module_folder("traefik", "sigs.k8s.io/gateway-api") / "config" / "crd" / "standard"
    kubectl("apply", "--server-side", "--force-conflicts", "--filename", crds)
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *_crd_names(crds))
    _apply("gateway", {"@IMAGE@": image})
    _rollout("gateway", "deployment/traefik")
    wait = ["--namespace=gateway", "wait", "--for=condition=Programmed", "gateway/public", "--timeout=60s"]
    with progress("waiting for the Gateway to be programmed"):
        kubectl(*wait, timeout=90)


def _crd_names(folder: Path) -> list[str]:
    """The CRDs of files named GROUP_PLURAL.yaml, as kubectl addresses them."""
    return [f"crd/{plural}.{group}" for group, plural in (p.stem.split("_") for p in sorted(folder.glob("*_*.yaml")))]


def _prometheus() -> None:
    checksum = fingerprint(HERE / "addons" / "prometheus" / "manifest.yaml")
    _apply("prometheus", {"@IMAGE@": _static("prometheus"), "@CHECKSUM@": checksum})
    _rollout("monitoring", "deployment/prometheus")


def _files() -> None:
    _apply("files", {"@IMAGE@": _python()})
    _rollout("models", "deployment/files")


def _s3() -> None:
    image, python = _static("rclone"), _python()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models"}}
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(namespace))
    if "s3-credentials" not in kubectl("--namespace=models", "get", "secrets", "--output=name"):
        values = {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_ENDPOINT_URL": "http://s3.models.svc",
            "AWS_REGION": "us-east-1",
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3-credentials", "namespace": "models"},
            "stringData": values,
        }
        kubectl("create", "--filename=-", stdin=json.dumps(secret))
    _apply("s3", {"@IMAGE@": image, "@PYTHON@": python})
    _rollout("models", "deployment/s3")


def _python() -> str:
    docker("tag", base_image(), PYTHON)
    load([PYTHON])
    return PYTHON


def _static(name: str) -> str:
    """The reference of an image that holds one static program, in every node."""
    program = tool(name, "linux")
    key = program.name.rsplit("-", 1)[1]
    reference = f"penstock.local/{name}:{key}"
    archive = CACHE / f"{reference.rsplit('/', 1)[1].replace(':', '-')}.tar"
    with locked(CACHE / "lock" / f"image-{name}", f"image {name}"):
        write_archive(archive, [Image(reference, program, name, user="65532:65532")])
        try:
            load_archive(archive, reference, key)
        finally:
            archive.unlink()
    return reference


def _apply(name: str, values: dict[str, str]) -> None:
    text = (HERE / "addons" / name / "manifest.yaml").read_text()
    for mark, value in values.items():
        text = text.replace(mark, value)
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)


def _rollout(namespace: str, name: str) -> None:
    """Wait until a workload's current version is ready; Problem with its pods' state where it does not come."""
    deadline = time.monotonic() + READY_S
    words = [f"--namespace={namespace}", "rollout", "status", name, "--timeout=4s"]
    with progress(f"waiting for {name} in {namespace}") as step:
        while True:
            try:
                kubectl(*words, timeout=30)
            except Problem:
                if time.monotonic() > deadline:
                    state = kubectl(f"--namespace={namespace}", "get", "pods", "--no-headers")
                    raise Problem(f"{name} is not ready after {READY_S} s: {state.splitlines()[:3]}") from None
                step.tick()
            else:
                return


ADDONS: dict[str, Callable[[], None]] = {
    "files": _files,
    "gateway": _gateway,
    "prometheus": _prometheus,
    "s3": _s3,
}
