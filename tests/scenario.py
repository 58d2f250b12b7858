"""A whole rollout in memory: the real reconciler over the fake cluster, with a kubelet, a gateway and users' traffic.

`Scenario` reads like the story it plays: `apply` a spec, let it `run_until` something holds, look at the status.
Time stands still but for `tick`, so a story of hours takes milliseconds and is the same each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.api.status import Status
from penstock.core.gates.samples import Series
from penstock.core.objects import (
    CLUSTER_MODEL_RUNTIME,
    DEPLOYMENT,
    HTTP_ROUTE,
    LABEL_REVISION,
    MODEL_DEPLOYMENT,
    POD,
    SERVICE,
    Object,
    Ref,
)
from penstock.core.world import Settings
from penstock.ports import Conflict
from penstock.shell.reconciler import Reconciler
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import Crash, FakeCluster
from tests.fakes.kubelet import Kubelet
from tests.fakes.world import FakeInspector, FakeMetrics, FakeRecorder

NAMESPACE, NAME = "ml", "fraud"
KEY = (NAMESPACE, NAME)
REF = Ref(MODEL_DEPLOYMENT, NAMESPACE, NAME)

RUNTIME: Object = {
    "apiVersion": CLUSTER_MODEL_RUNTIME.api_version,
    "kind": CLUSTER_MODEL_RUNTIME.kind,
    "metadata": {"name": "onnxruntime"},
    "spec": {
        "formats": [{"name": "onnx", "autoSelect": True}],
        "protocol": "OpenInferenceV2",
        "modelLayout": "flat",
        "ports": {"http": 8080, "metrics": 9090, "admin": 9091},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "image": "runtime:test",
                        "args": ["serve", "--model-path", "$(model.path)", "--model-name", "$(model.name)"],
                        "ports": [
                            {"name": "http", "containerPort": 8080},
                            {"name": "metrics", "containerPort": 9090},
                            {"name": "admin", "containerPort": 9091},
                        ],
                    }
                ]
            }
        },
    },
}

GATEWAY = {"router": "GatewayAPI", "parentRefs": [{"name": "public"}]}
QUICK = {"block": "10s", "soak": "0s", "warmUp": {"requests": 0, "period": "0s"}}


def spec(uri: str = "http://files/v1.onnx", **changes: Any) -> dict[str, Any]:
    """A spec with quick gates behind a gateway; `changes` replace top-level fields."""
    base: dict[str, Any] = {
        "model": {"uri": uri},
        "replicas": 4,
        "rollout": {
            "steps": [{"weight": 5}, {"weight": 25}, {"weight": 50}],
            "analysis": QUICK,
            "gates": [
                {"name": "accuracy", "compare": {"signal": "accuracy", "maxDrop": 0.05}},
                {"name": "errors", "compare": {"signal": "errors", "maxIncrease": 0.02}},
            ],
        },
        "traffic": GATEWAY,
    }
    return {**base, **changes}


@dataclass
class Behaviour:
    """How the model behind a uri behaves."""

    accuracy: float = 0.97
    errors: float = 0.0
    loads: bool = True
    reason: str = "ModelLoadFailed"


@dataclass
class Scenario:
    """The stage and all players."""

    requests_per_second: float = 200.0
    seed: int = 7
    behaviours: dict[str, Behaviour] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster(self.clock)
        self.kubelet = Kubelet(self.cluster)
        self.metrics = FakeMetrics()
        self.inspector = FakeInspector()
        self.recorder = FakeRecorder()
        self.random = random.Random(self.seed)
        self.counters: dict[tuple[str, str, str, tuple[tuple[str, str], ...]], int] = {}
        self.served: dict[str, int] = {}
        self._told = 0
        self.kubelet_works = True
        self.gateway_works = True
        self.cluster.put(RUNTIME)
        self.reconciler = self.new_operator()

    def new_operator(self) -> Reconciler:
        """A fresh operator: nothing remembered."""
        settings = Settings(agent_image="agent:test", scrape_seconds=5, retire_seconds=30)
        self.reconciler = Reconciler(self.cluster, self.metrics, self.inspector, self.recorder, self.clock, settings)
        return self.reconciler

    # --- users ---------------------------------------------------------------------------------------

    def apply(self, wanted: Mapping[str, Any]) -> None:
        """`kubectl apply` with this whole spec."""
        manifest = {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.kind,
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": dict(wanted),
        }
        if self.cluster.peek(REF) is None:
            self.cluster.put(manifest)
            return

        def change(obj: Object) -> None:
            obj["spec"] = dict(wanted)

        self.cluster.edit(REF, change)

    @property
    def status(self) -> Status:
        """The status as the cluster holds it."""
        return Status.from_wire((self.cluster.peek(REF) or {}).get("status"))

    @property
    def weights_seen(self) -> list[int]:
        """Every weight that was ever written to the status, repeats left out."""
        seen: list[int] = []
        for write in self.cluster.writes[self._told :]:
            traffic = ((write.obj or {}).get("status") or {}).get("traffic") if write.ref == REF else None
            weight = (traffic or {}).get("appliedWeight")
            if weight is not None and (not seen or seen[-1] != weight):
                seen.append(weight)
        return seen

    def forget_weights(self) -> None:
        """Count weights from now on."""
        self._told = len(self.cluster.writes)

    # --- time ----------------------------------------------------------------------------------------

    def reconcile(self, times: int = 1) -> float | None:
        """The operator's turn; a conflict just means another turn, as in the queue."""
        due: float | None = None
        for _ in range(times):
            try:
                due = asyncio.run(self.reconciler.reconcile(KEY))
            except Conflict:
                due = self.clock.now()
        return due

    def tick(self, seconds: float = 5.0) -> None:
        """Everybody's turn: the operator until it rests, the cluster, the users' traffic."""
        for _ in range(12):
            due = self.reconcile()
            self.play_cluster()
            if due is None or due > self.clock.now():
                break
        self.clock.advance(seconds)
        self.play_traffic(seconds)

    def run_until(self, done: Callable[[Status], bool], ticks: int = 400) -> Status:
        """Let time pass until the status is so."""
        for _ in range(ticks):
            if done(self.status):
                return self.status
            self.tick()
        raise AssertionError(f"never came: {self.status.phase} {self.status.message}")

    # --- the cluster ---------------------------------------------------------------------------------

    def play_cluster(self) -> None:
        """Kubelets and gateway catch up."""
        for deployment in self.cluster.all(DEPLOYMENT) if self.kubelet_works else ():
            uri = deployment["spec"]["template"]["spec"]["initContainers"][0]["args"][2]
            behaviour = self.behaviours.get(uri, Behaviour())
            if behaviour.loads:
                self.kubelet.make_ready(deployment, digest=digest_of(uri))
            else:
                self.kubelet.fail_load(deployment, behaviour.reason, "protobuf parsing failed")
        if self.gateway_works and self.cluster.peek(Ref(HTTP_ROUTE, NAMESPACE, NAME)):
            self.kubelet.accept_route(NAMESPACE, NAME)

    def shares(self) -> dict[str, float]:
        """Share of the requests by revision, as the live route (or Service) and the ready pods make it."""
        route = self.cluster.peek(Ref(HTTP_ROUTE, NAMESPACE, NAME))
        if route:
            refs = route["spec"]["rules"][0]["backendRefs"]
            return {r["name"].removeprefix(f"{NAME}-"): r["weight"] / 100 for r in refs}
        service = self.cluster.peek(Ref(SERVICE, NAMESPACE, NAME))
        if service is None:
            return {}
        chosen = service["spec"]["selector"]
        pods = [p for p in self.cluster.all(POD, NAMESPACE, chosen) if _is_ready(p)]
        counts: dict[str, int] = {}
        for pod in pods:
            revision = pod["metadata"]["labels"][LABEL_REVISION]
            counts[revision] = counts.get(revision, 0) + 1
        return {r: n / len(pods) for r, n in counts.items()}

    def play_traffic(self, seconds: float) -> None:
        """Requests by the live route, their labels right after, and the next scrape."""
        cohort = self.status.rollout.id if self.status.rollout else "none"
        for revision, share in self.shares().items():
            pods = [p for p in self.cluster.all(POD, NAMESPACE, {LABEL_REVISION: revision}) if _is_ready(p)]
            total = round(self.requests_per_second * seconds * share)
            for i, pod in enumerate(pods):
                n = total // len(pods) + (1 if i < total % len(pods) else 0)
                self._serve(pod, revision, n, cohort or "none")
        self.metrics.series = self._scrape()

    def _serve(self, pod: Object, revision: str, requests: int, cohort: str) -> None:
        behaviour = self.behaviours.get(pod["spec"]["initContainers"][0]["args"][2], Behaviour())
        failed = sum(self.random.random() < behaviour.errors for _ in range(requests))
        right = sum(self.random.random() < behaviour.accuracy for _ in range(requests - failed))
        self.served[revision] = self.served.get(revision, 0) + requests
        self._count(pod, revision, "penstock_requests_total", {"outcome": "ok"}, requests - failed)
        self._count(pod, revision, "penstock_requests_total", {"outcome": "server_error"}, failed)
        for result, n in (("correct", right), ("incorrect", requests - failed - right)):
            self._count(pod, revision, "penstock_feedback_total", {"result": result, "cohort": cohort}, n)

    def _count(self, pod: Object, revision: str, name: str, labels: Mapping[str, str], n: int) -> None:
        key = (pod["metadata"]["name"], revision, name, tuple(sorted(labels.items())))
        self.counters[key] = self.counters.get(key, 0) + n

    def _scrape(self) -> list[Series]:
        alive = {p["metadata"]["name"] for p in self.cluster.all(POD, NAMESPACE)}
        now = self.clock.now()
        kept = {(s.pod, s.revision, s.name, s.labels): s.points[-500:] for s in self.metrics.series}
        return [
            Series(
                pod,
                revision,
                name,
                labels,
                (*kept.get((pod, revision, name, labels), ()), (now, float(value))),
            )
            for (pod, revision, name, labels), value in sorted(self.counters.items())
            if pod in alive
        ]


def digest_of(uri: str) -> str:
    """The digest that every pod of a uri's revision reports."""
    return f"sha256:{hashlib.sha256(uri.encode()).hexdigest()}"


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def outcomes(status: Status) -> list[str]:
    """How rollouts ended, the first one first."""
    return [str(h.outcome) for h in reversed(status.history)]


__all__ = ["GATEWAY", "KEY", "QUICK", "REF", "Behaviour", "Crash", "Scenario", "digest_of", "outcomes", "spec"]
