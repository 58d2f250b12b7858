"""Kubernetes objects as plain data: what the core names and the adapters fetch and write.

Objects stay raw JSON dictionaries, so that fields newer than this code survive a round trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]

GROUP = "penstock.dev"
VERSION = "v1alpha1"
FIELD_MANAGER = "penstock"

LABEL_MODEL = f"{GROUP}/model"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type of the API server: enough to build its URL."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` as manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version


MODEL_DEPLOYMENT = Kind(GROUP, VERSION, "ModelDeployment", "modeldeployments")
CLUSTER_MODEL_RUNTIME = Kind(GROUP, VERSION, "ClusterModelRuntime", "clustermodelruntimes", namespaced=False)
ROLLOUT_ANALYSIS = Kind(GROUP, VERSION, "RolloutAnalysis", "rolloutanalyses")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
CONTROLLER_REVISION = Kind("apps", "v1", "ControllerRevision", "controllerrevisions")
SERVICE = Kind("", "v1", "Service", "services")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SECRET = Kind("", "v1", "Secret", "secrets")
POD = Kind("", "v1", "Pod", "pods")
EVENT = Kind("", "v1", "Event", "events")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")

KINDS: Mapping[tuple[str, str], Kind] = {
    (k.api_version, k.kind): k
    for k in (
        MODEL_DEPLOYMENT,
        CLUSTER_MODEL_RUNTIME,
        ROLLOUT_ANALYSIS,
        DEPLOYMENT,
        CONTROLLER_REVISION,
        SERVICE,
        CONFIG_MAP,
        SECRET,
        POD,
        EVENT,
        HTTP_ROUTE,
        LEASE,
    )
}


@dataclass(frozen=True, slots=True)
class Ref:
    """The address of one object."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Fence:
    """The state an action was decided on: it must not touch anything newer.

    `uid` and `resource_version` are those of the object read; both None means that the object was absent.
    """

    uid: str | None = None
    resource_version: str | None = None


def kind_of(obj: Object) -> Kind:
    """The Kind of a manifest; KeyError for one this operator never handles."""
    return KINDS[obj["apiVersion"], obj["kind"]]


def ref_of(obj: Object) -> Ref:
    """The address of a manifest or of a live object."""
    meta = obj["metadata"]
    return Ref(kind_of(obj), meta.get("namespace", ""), meta["name"])


def fence_of(obj: Object | None) -> Fence:
    """The fence of a live object, or that of an absent one."""
    if obj is None:
        return Fence()
    meta = obj["metadata"]
    return Fence(meta.get("uid"), meta.get("resourceVersion"))
