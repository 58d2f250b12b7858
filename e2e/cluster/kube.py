"""kubectl on this checkout's cluster, never on another."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from e2e.cluster.console import Problem, output
from e2e.cluster.places import foreign, kubeconfig
from e2e.cluster.tools import tool


def kubectl(*words: str | Path, stdin: str = "", timeout: float = 120) -> str:
    """The output of one kubectl command on the cluster; Problem where it fails."""
    return output([tool("kubectl"), "--kubeconfig", kubeconfig(), *words], stdin=stdin, timeout=timeout)


def answers() -> bool:
    """Whether the cluster's API server says it is ready."""
    if not kubeconfig().exists():
        return False
    try:
        return kubectl("get", "--raw=/readyz", "--request-timeout=5s", timeout=15) == "ok"
    except Problem:
        return False


def copy_users_context() -> None:
    """CLUSTER=current: keep a copy of the user's current context as this cluster's kubeconfig."""
    assert foreign()
    mine = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    done = subprocess.run(
        [tool("kubectl"), "config", "view", "--minify", "--flatten", "--raw"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or "server:" not in done.stdout:
        raise Problem(f"CLUSTER=current, but {mine} has no current context", "kubectl config use-context NAME")
    kubeconfig().touch(mode=0o600)
    kubeconfig().write_text(done.stdout)
