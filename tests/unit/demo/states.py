"""States of a ModelDeployment as the cluster would show them, for tests of the story's pure parts."""

from __future__ import annotations

from typing import Any

from e2e.demo.journal import Sighting
from e2e.demo.settings import uri_of

NAMES = {"v1": "rone", "v2": "rtwo", "v3": "rthree", "v4": "rfour", "v5": "rfive", "v6": "rsix"}


def arm(version: str) -> dict[str, Any]:
    """A revision of a version, with both pods ready."""
    return {"revision": NAMES[version], "uri": uri_of(version), "replicas": 2, "ready": 2}


def conditions(*, healthy: bool) -> list[dict[str, Any]]:
    """Ready and Available, and Stalled where it is not healthy."""
    states = {"Ready": healthy, "Available": True, "Stalled": not healthy}
    return [{"type": kind, "status": str(value)} for kind, value in states.items() if value or kind != "Stalled"]


def at_rest(at: float, stable: str, history: list[dict[str, Any]], **status: Any) -> Sighting:
    """No rollout under way."""
    body = {
        "observedGeneration": 1,
        "phase": "Healthy",
        "stable": arm(stable),
        "traffic": {"appliedWeight": 0},
        "history": history,
        "conditions": conditions(healthy=status.get("phase", "Healthy") == "Healthy"),
        **status,
    }
    return Sighting(at, {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": body})


def stepping(at: float, stable: str, canary: str, weight: int, **gate: Any) -> Sighting:
    """A canary at a weight, with one gate."""
    status = {
        "observedGeneration": 1,
        "phase": "Progressing",
        "stable": arm(stable),
        "canary": arm(canary),
        "traffic": {"appliedWeight": weight},
        "rollout": {
            "id": f"{NAMES[canary]}-x",
            "stage": "Stepping",
            "step": "1/4",
            "gates": [{"name": "accuracy", **gate}],
        },
        "message": "canary on trial",
    }
    return Sighting(at, {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status})


def ended(version: str, outcome: str, reason: str) -> dict[str, Any]:
    """An entry of the history."""
    return {"revision": NAMES[version], "outcome": outcome, "reason": reason}


def refused(version: str, reason: str, gate: str = "") -> dict[str, Any]:
    """An entry of the rejected ones."""
    entry = {"revision": NAMES[version], "reason": reason, "message": "with numbers"}
    return {**entry, "gate": gate} if gate else entry


def analysis(version: str, phase: str, **verdicts: str) -> dict[str, Any]:
    """A RolloutAnalysis."""
    gates = [{"name": name, "verdict": verdict} for name, verdict in verdicts.items()]
    spec = {"modelDeployment": "digits", "rollout": f"{NAMES[version]}-x", "canary": NAMES[version]}
    return {"metadata": {"name": "a"}, "spec": spec, "status": {"phase": phase, "gates": gates}}


def deployment(version: str, ready: int = 2) -> dict[str, Any]:
    """The Deployment of a version."""
    return {"metadata": {"name": f"digits-{NAMES[version]}"}, "status": {"readyReplicas": ready}}


def route(**weights: int) -> dict[str, Any]:
    """An HTTPRoute with weights by version."""
    refs = [{"name": f"digits-{NAMES[version]}", "weight": weight} for version, weight in weights.items()]
    return {"spec": {"rules": [{"backendRefs": refs}]}}


def second(at: float, **counts: tuple[int, int, float]) -> dict[str, Any]:
    """A second of traffic: by version (answers, wrong ones, median ms)."""
    revisions = {
        NAMES[version]: {"ok": ok, "wrong": wrong, "failed": 0, "p50_ms": p50, "p99_ms": p50}
        for version, (ok, wrong, p50) in counts.items()
    }
    return {"at": at, "sent": sum(c["ok"] for c in revisions.values()), "revisions": revisions}
