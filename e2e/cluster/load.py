"""Brings images from the local Docker, or from archives, into every node of the cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

from e2e.cluster import images, lifecycle
from e2e.cluster.console import Problem, logged, output, progress
from e2e.cluster.engine import docker
from e2e.cluster.places import LOGS, cluster_name, foreign, kubeconfig
from e2e.cluster.tools import tool

_IMPORT = ("ctr", "--namespace=k8s.io", "images", "import", "--all-platforms", "-")
_SEEN = "/var/lib/penstock-loaded"


def load(references: Sequence[str]) -> None:
    """Load images from the local Docker into every node that does not have those very bytes yet.

    The product's own images are built first where this checkout's sources changed. Raises Problem
    where an image is unknown to Docker or the cluster cannot take images.
    """
    nodes = _nodes()
    with ExitStack() as stack:
        for product in images.PRODUCTS.values():
            if product.reference in references:
                stack.enter_context(images.held(product))
        wanted = {reference: _identity(reference) for reference in references}
        if foreign():
            _load_into_foreign(references)
        else:
            _everywhere(nodes, wanted, lambda fresh: ["docker", "save", *fresh])


def load_archive(archive: Path, reference: str, identity: str) -> None:
    """Load an image archive into every node that has not got it under this `identity`."""
    if foreign():
        docker("load", "--input", archive)
        _load_into_foreign([reference])
        return
    _everywhere(_nodes(), {reference: identity}, lambda _: ["cat", str(archive)])


def _identity(reference: str) -> str:
    try:
        return docker("image", "inspect", "--format", "{{.Id}}", reference)
    except Problem:
        raise Problem(f"Docker has no image {reference}", "build it: e2e/cluster/images") from None


def _everywhere(nodes: Sequence[str], wanted: dict[str, str], source: Callable[[list[str]], list[str]]) -> None:
    """Bring the wanted images (reference to identity) to all nodes at once; `source` gives the archive's writer."""

    def one(node: str) -> None:
        seen = _seen(node)
        fresh = [reference for reference, identity in wanted.items() if seen.get(reference) != identity]
        if fresh:
            _pipe(source(fresh), node)
            _remember(node, {**seen, **{reference: wanted[reference] for reference in fresh}})

    with ThreadPoolExecutor(len(nodes) or 1) as pool, progress(f"loading {' '.join(wanted)}") as step:
        futures = [pool.submit(one, node) for node in nodes]
        while wait(futures, timeout=0.5).not_done:
            step.tick()
        for future in futures:
            future.result()


def _nodes() -> list[str]:
    if foreign():
        return []
    names = lifecycle.containers()
    if not names:
        raise Problem(f"there is no cluster {cluster_name()}", "run e2e/cluster/up")
    return names


def _seen(node: str) -> dict[str, str]:
    text = docker("exec", node, "sh", "-c", f"cat {_SEEN} 2>/dev/null || true")
    return dict(line.split(" ", 1) for line in text.splitlines())


def _remember(node: str, seen: dict[str, str]) -> None:
    lines = "".join(f"{reference} {identity}\n" for reference, identity in sorted(seen.items()))
    docker("exec", "--interactive", node, "sh", "-c", f"cat > {_SEEN}", stdin=lines)


def _pipe(source: Sequence[str], node: str) -> None:
    saving = subprocess.Popen(source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    done = subprocess.run(
        ["docker", "exec", "--interactive", node, *_IMPORT],
        stdin=saving.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert saving.stdout is not None
    saving.stdout.close()
    if saving.wait() != 0 or done.returncode != 0:
        last = done.stdout.decode(errors="replace").strip().splitlines() or ["no output"]
        raise Problem(f"loading images into {node} failed: {last[-1]}")


def _load_into_foreign(references: Sequence[str]) -> None:
    context = output([tool("kubectl"), "--kubeconfig", kubeconfig(), "config", "current-context"])
    if not context.startswith("kind-"):
        raise Problem(
            f"CLUSTER=current is {context}, no kind cluster: images cannot be loaded into it",
            f"push {' '.join(references)} to a registry it can pull from, and set the chart's image values",
        )
    name = context.removeprefix("kind-")
    command: list[str | Path] = [tool("kind"), "load", "docker-image", "--name", name, *references]
    logged(f"loading images into {name}", command, LOGS / "kind-load.log")
