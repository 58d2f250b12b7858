"""Plays the controllers and the kubelet over a FakeCluster: pods, readiness, failures, route acceptance."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Mapping
from typing import Any

from penstock.core.objects import DEPLOYMENT, HTTP_ROUTE, POD, Object, Ref, ref_of
from tests.fakes.copying import copied

from .cluster import FakeCluster

DIGEST = "sha256:" + "ab" * 32
HASH_LABEL = "pod-template-hash"


class Kubelet:
    """What happens in a cluster after a write: only as much of it as the operator looks at."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self._ips = itertools.count(2)
        self._names = itertools.count(1)

    def make_ready(
        self,
        deployment: Ref | Object,
        ready: int | None = None,
        *,
        digest: str | None = DIGEST,
        restarts: int = 0,
    ) -> Object:
        """Bring a Deployment's pods to its replica count, the first `ready` of them (default all) Ready.

        `digest` is what the init container `fetch` reports in its termination message; None where the pods
        have no such container. Returns the Deployment.
        """
        live = self._deployment(deployment)
        wanted = live["spec"].get("replicas", 1)
        count = wanted if ready is None else min(ready, wanted)
        pods = self._scale_pods(live, wanted)
        for i, pod in enumerate(pods):
            status = self._running(pod, live, is_ready=i < count, digest=digest, restarts=restarts)
            self.cluster.set_status(ref_of(pod), status)
        return self._report(live, wanted, count)

    def make_all_ready(self, namespace: str = "", *, digest: str | None = DIGEST) -> None:
        """`make_ready` for every Deployment of a namespace (empty: of all)."""
        for deployment in self.cluster.all(DEPLOYMENT, namespace):
            self.make_ready(deployment, digest=digest)

    def fail_fetch(self, deployment: Ref | Object, reason: str, message: str) -> Object:
        """Every pod's init container `fetch` ends with this reason and waits to be started again."""
        return self._fail(deployment, "initContainerStatuses", "fetch", {"reason": reason, "message": message})

    def fail_load(self, deployment: Ref | Object, reason: str, message: str, container: str = "server") -> Object:
        """Every pod's server ends after a good fetch: `reason` and `message` are its termination message."""
        return self._fail(deployment, "containerStatuses", container, {"reason": reason, "message": message})

    def unschedulable(self, deployment: Ref | Object, message: str) -> Object:
        """The scheduler finds no node for any of the pods."""
        live = self._deployment(deployment)
        for pod in self._scale_pods(live, live["spec"].get("replicas", 1)):
            condition = self._condition(pod, "PodScheduled", "False", reason="Unschedulable", message=message)
            self.cluster.set_status(ref_of(pod), {"phase": "Pending", "conditions": [condition]})
        return self._report(live, live["spec"].get("replicas", 1), 0)

    def progress_deadline(self, deployment: Ref | Object) -> Object:
        """The Deployment's own deadline has passed without progress."""
        live = self._deployment(deployment)
        status = copied(live.get("status", {}))
        status["observedGeneration"] = live["metadata"]["generation"]
        status["conditions"] = [
            self._condition(live, "Available", "False", reason="MinimumReplicasUnavailable", message=""),
            self._condition(live, "Progressing", "False", reason="ProgressDeadlineExceeded", message="timed out"),
        ]
        return self.cluster.set_status(ref_of(live), status)

    def accept_route(self, namespace: str, name: str, *, accepted: bool = True, message: str = "") -> Object:
        """The gateway reports on an HTTPRoute at its current generation."""
        live = self.cluster.must(Ref(HTTP_ROUTE, namespace, name))
        word = ("True", "Accepted", "ResolvedRefs") if accepted else ("False", "NoMatchingParent", "RefNotPermitted")
        parents = [
            {
                "parentRef": copied(parent),
                "controllerName": "example.com/gateway",
                "conditions": [
                    self._condition(live, kind, word[0], reason=reason, message=message)
                    | {"observedGeneration": live["metadata"]["generation"]}
                    for kind, reason in (("Accepted", word[1]), ("ResolvedRefs", word[2]))
                ],
            }
            for parent in live["spec"].get("parentRefs", [])
        ]
        return self.cluster.set_status(ref_of(live), {"parents": parents})

    def pods(self, deployment: Ref | Object) -> list[Object]:
        """The pods of a Deployment, oldest first."""
        return self._pods(self._deployment(deployment))

    # --- inside -----------------------------------------------------------------------------------------

    def _deployment(self, deployment: Ref | Object) -> Object:
        return self.cluster.must(deployment if isinstance(deployment, Ref) else ref_of(deployment))

    def _pods(self, live: Object) -> list[Object]:
        uid = live["metadata"]["uid"]
        pods = [
            pod
            for pod in self.cluster.all(POD, live["metadata"]["namespace"])
            if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences", []))
        ]
        return sorted(pods, key=lambda pod: int(pod["metadata"]["name"].rsplit("-", 1)[1]))

    def _scale_pods(self, live: Object, wanted: int) -> list[Object]:
        pods = self._pods(live)
        for pod in pods[wanted:]:
            self.cluster.remove(ref_of(pod))
        pods = pods[:wanted]
        while len(pods) < wanted:
            pods.append(self._start(live))
        return pods

    def _start(self, live: Object) -> Object:
        template = live["spec"]["template"]
        meta = live["metadata"]
        owner = {
            # A real pod's owner is a ReplicaSet in between, which the operator never looks at.
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{meta['name']}-{next(self._names)}",
                "namespace": meta["namespace"],
                "labels": {**template["metadata"].get("labels", {}), HASH_LABEL: "fake"},
                "annotations": dict(template["metadata"].get("annotations", {})),
                "ownerReferences": [owner],
            },
            "spec": {**copied(template["spec"]), "nodeName": "node-1"},
        }
        self.cluster.put(pod)
        return self.cluster.set_status(ref_of(pod), {"phase": "Pending"})

    def _running(
        self, pod: Object, live: Object, *, is_ready: bool, digest: str | None, restarts: int
    ) -> dict[str, Any]:
        word = "True" if is_ready else "False"
        status: dict[str, Any] = {
            "phase": "Running",
            "podIP": pod["status"].get("podIP") or f"10.244.0.{next(self._ips)}",
            "conditions": [
                self._condition(pod, "PodScheduled", "True"),
                self._condition(pod, "Initialized", "True"),
                self._condition(pod, "ContainersReady", word),
                self._condition(pod, "Ready", word),
            ],
            "containerStatuses": [
                {"name": c["name"], "ready": is_ready, "restartCount": restarts, "state": {"running": {}}}
                for c in live["spec"]["template"]["spec"].get("containers", [])
            ],
        }
        if digest is not None:
            status["initContainerStatuses"] = [_fetched({"digest": digest, "bytes": 1024, "files": 1}, 0)]
        return status

    def _fail(self, deployment: Ref | Object, field: str, container: str, message: Mapping[str, str]) -> Object:
        live = self._deployment(deployment)
        for pod in self._scale_pods(live, live["spec"].get("replicas", 1)):
            status = self._running(pod, live, is_ready=False, digest=DIGEST, restarts=2)
            ended = {"exitCode": 1, "reason": "Error", "message": json.dumps(message)}
            status[field] = [
                {
                    "name": container,
                    "ready": False,
                    "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": ended},
                }
            ]
            if field == "initContainerStatuses":
                status["phase"] = "Pending"
                status["containerStatuses"] = []
            self.cluster.set_status(ref_of(pod), status)
        return self._report(live, live["spec"].get("replicas", 1), 0)

    def _report(self, live: Object, wanted: int, ready: int) -> Object:
        status: dict[str, Any] = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": wanted - ready,
            "conditions": [
                self._condition(live, "Available", "True" if ready >= wanted else "False"),
                self._condition(live, "Progressing", "True"),
            ],
        }
        # The real controller leaves zeros out.
        status = {k: v for k, v in status.items() if v != 0}
        return self.cluster.set_status(ref_of(live), status)

    def _condition(self, obj: Object, kind: str, status: str, *, reason: str = "", message: str = "") -> dict[str, Any]:
        """A condition whose transition time moves only when its status does."""
        now = dt.datetime.fromtimestamp(self.cluster.clock.now(), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for old in obj.get("status", {}).get("conditions", []):
            if old["type"] == kind and old["status"] == status:
                now = old["lastTransitionTime"]
        out = {"type": kind, "status": status, "lastTransitionTime": now}
        return out | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})


def _fetched(message: Mapping[str, Any], exit_code: int) -> dict[str, Any]:
    ended = {
        "exitCode": exit_code,
        "reason": "Completed",
        "message": json.dumps(message, separators=(",", ":")),
    }
    return {"name": "fetch", "ready": True, "restartCount": 0, "state": {"terminated": ended}}
