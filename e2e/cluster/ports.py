"""The loopback ports under which this machine reaches the cluster; chosen once and remembered."""

from __future__ import annotations

import json
import os
import socket

from e2e.cluster.console import Problem
from e2e.cluster.places import cluster_name, foreign, state

NAMES = ("gateway", "prometheus", "feedback")


def ports() -> dict[str, int]:
    """The remembered ports by name; Problem where the cluster was never made."""
    if foreign():
        raise Problem("with CLUSTER=current no ports are mapped", "use kubectl port-forward")
    file = state() / "ports.json"
    if not file.exists():
        raise Problem(f"there is no cluster {cluster_name()}", "run e2e/cluster/up")
    return {name: int(port) for name, port in json.loads(file.read_text()).items()}


def choose() -> dict[str, int]:
    """Ports for a cluster about to be made: those wished for, those used before if free, else any."""
    file = state() / "ports.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    chosen = {name: _choose(name, before.get(name, 0)) for name in NAMES}
    file.write_text(json.dumps(chosen))
    return chosen


def _choose(name: str, before: int) -> int:
    variable = f"PENSTOCK_{name.upper()}_PORT"
    wish = os.environ.get(variable, "")
    if wish:
        if not wish.isdigit() or not 0 < int(wish) < 65536:
            raise Problem(f"{variable}={wish} is no port", "give a number from 1 to 65535, or leave it out")
        if not _free(int(wish)):
            raise Problem(f"port {wish} on 127.0.0.1 is taken", f"free it, or choose another in {variable}")
        return int(wish)
    if before and _free(before):
        return before
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
