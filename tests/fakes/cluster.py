"""An in-memory API server behind the `Cluster` port, for tests of the machine and of crashes.

The contract tests in tests/integration run the same cases over this and over a real kube-apiserver, so that
what the machine's tests lean on is what the server does.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from penstock.core.objects import (
    CLUSTER_MODEL_RUNTIME,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    HTTP_ROUTE,
    MODEL_DEPLOYMENT,
    POD,
    ROLLOUT_ANALYSIS,
    SERVICE,
    Fence,
    Kind,
    Object,
    Ref,
    kind_of,
    ref_of,
)
from penstock.ports import ClusterError, Conflict, Invalid
from tests.fakes.copying import copied

from .bounds import violations
from .clock import FakeClock
from .merge import applied

WITH_STATUS = frozenset({MODEL_DEPLOYMENT, ROLLOUT_ANALYSIS, DEPLOYMENT, HTTP_ROUTE, POD, SERVICE})
WITH_GENERATION = frozenset({MODEL_DEPLOYMENT, CLUSTER_MODEL_RUNTIME, ROLLOUT_ANALYSIS, DEPLOYMENT, HTTP_ROUTE})

Objects: TypeAlias = list[Object]
Verb = Literal["create", "apply", "replace_status", "annotate", "delete"]


class Crash(BaseException):
    """The operator's process dies here. Not an Exception: no handler of errors outlives the process."""


@dataclass(frozen=True, slots=True)
class Write:
    """One accepted write of the operator, in order. `changed` is false where the object was equal already."""

    verb: Verb
    ref: Ref
    changed: bool
    obj: Object | None
    """The object after the write; None after a delete."""

    def __str__(self) -> str:
        return f"{self.verb} {self.ref}"


Writes: TypeAlias = list[Write]


class FakeCluster:
    """Objects with uid, resourceVersion, generation, fences, server-side apply and garbage collection.

    What the operator does goes through the port's methods and into `writes`; what everybody else does (users,
    controllers, the kubelet) goes through `put`, `edit`, `set_status` and `remove`, which are not logged.
    """

    def __init__(self, clock: FakeClock | None = None, *, missing: frozenset[Kind] = frozenset()) -> None:
        self.clock = clock or FakeClock()
        self.writes: list[Write] = []
        self.reads = 0
        self.missing = set(missing)
        """Types that are not installed."""
        self.before_write: Callable[[Verb, Ref], None] | None = None
        """Called before each write of the operator is looked at: a test interferes here, or raises."""
        self.outage: ClusterError | None = None
        """While set, every request of the operator raises it."""
        self.server_defaults: Callable[[Object], None] = _defaults
        self._objects: dict[Ref, Object] = {}
        self._intents: dict[tuple[Ref, str], Object] = {}
        self._versions = itertools.count(1)
        self._attempts = 0
        self._crash: tuple[int, Literal["before", "after"]] | None = None

    # --- the port ---------------------------------------------------------------------------------------

    async def get(self, ref: Ref) -> Object | None:
        """See `Cluster.get`."""
        self._read()
        return None if ref.kind in self.missing else self.peek(ref)

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Objects:
        """See `Cluster.list`."""
        self._read()
        return [] if kind in self.missing else self.all(kind, namespace, labels)

    async def create(self, manifest: Object) -> Object:
        """See `Cluster.create`."""
        ref = ref_of(manifest)
        self._begin("create", ref)
        return self._end("create", ref, changed=True, obj=self._create(manifest))

    async def apply(self, manifest: Object, fence: Fence) -> Object:
        """See `Cluster.apply`."""
        ref = ref_of(manifest)
        self._begin("apply", ref)
        if fence.uid is None:
            return self._end("apply", ref, changed=True, obj=self._create(manifest))
        live = self._fenced(ref, fence)
        intent = _intent(manifest)
        new = applied(live, self._intents.get((ref, live["metadata"]["uid"])), intent)
        changed = self._store(ref, live, new)
        self._intents[ref, live["metadata"]["uid"]] = intent
        return self._end("apply", ref, changed=changed, obj=self.must(ref))

    async def replace_status(self, obj: Object) -> Object:
        """See `Cluster.replace_status`."""
        ref = ref_of(obj)
        self._begin("replace_status", ref)
        if broken := violations(ref.kind, obj):
            raise Invalid(f"{ref}: {'; '.join(broken)}")
        meta = obj["metadata"]
        live = self._fenced(ref, Fence(meta.get("uid"), meta["resourceVersion"]))
        changed = self._store(ref, live, {**live, "status": copied(obj.get("status", {}))}, status=True)
        return self._end("replace_status", ref, changed=changed, obj=self.must(ref))

    async def annotate(self, ref: Ref, annotations: Mapping[str, str], fence: Fence) -> Object:
        """See `Cluster.annotate`."""
        self._begin("annotate", ref)
        live = self._fenced(ref, fence)
        new = copied(live)
        new["metadata"].setdefault("annotations", {}).update(annotations)
        changed = self._store(ref, live, new)
        return self._end("annotate", ref, changed=changed, obj=self.must(ref))

    async def delete(self, ref: Ref, fence: Fence) -> None:
        """See `Cluster.delete`."""
        self._begin("delete", ref)
        existed = ref in self._objects and ref.kind not in self.missing
        if existed:
            self._fenced(ref, fence)
            self.remove(ref)
        self._end("delete", ref, changed=existed, obj=None)

    # --- crashes ----------------------------------------------------------------------------------------

    def crash_at(self, n: int, when: Literal["before", "after"] = "before") -> None:
        """Raise Crash before or after the n-th write from now (1 is the next one). Happens once."""
        self._crash = (self._attempts + n, when)

    def survive(self) -> None:
        """Take a crash that has not happened back."""
        self._crash = None

    @property
    def crash_pending(self) -> bool:
        """True while a crash asked for has not happened."""
        return self._crash is not None

    def changes(self) -> Writes:
        """The writes that changed something."""
        return [w for w in self.writes if w.changed]

    # --- everybody else ---------------------------------------------------------------------------------

    def peek(self, ref: Ref) -> Object | None:
        """A copy of an object, without a request."""
        obj = self._objects.get(ref)
        return copied(obj) if obj is not None else None

    def must(self, ref: Ref) -> Object:
        """A copy of an object that has to be there."""
        obj = self.peek(ref)
        assert obj is not None, f"{ref} is not there; there is: {', '.join(map(str, self._objects))}"
        return obj

    def all(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> Objects:
        """Copies of all objects of a type in name order, without a request."""
        wanted = (labels or {}).items()
        return [
            copied(obj)
            for ref, obj in sorted(self._objects.items(), key=lambda item: (item[0].namespace, item[0].name))
            if ref.kind == kind
            and (not namespace or ref.namespace == namespace)
            and wanted <= obj["metadata"].get("labels", {}).items()
        ]

    def put(self, manifest: Object, manager: str = "user") -> Object:
        """`kubectl apply` by somebody else: create the object, or apply it over what is there."""
        ref = ref_of(manifest)
        live = self._objects.get(ref)
        if live is None:
            return self._create(manifest, ours=False)
        intent = _intent(manifest)
        key = (ref, f"{manager}:{live['metadata']['uid']}")
        self._store(ref, live, applied(live, self._intents.get(key), intent))
        self._intents[key] = intent
        return self.must(ref)

    def edit(self, ref: Ref, change: Callable[[Object], None]) -> Object:
        """Somebody changes an object in place (`kubectl edit`); the status is left alone."""
        live = self.must(ref)
        new = self.must(ref)
        change(new)
        self._store(ref, live, new)
        return self.must(ref)

    def set_status(self, ref: Ref, status: Mapping[str, Any] | None) -> Object:
        """A controller writes the status of an object; None wipes it."""
        live = self.must(ref)
        new = {k: v for k, v in live.items() if k != "status"}
        if status is not None:
            new["status"] = copied(dict(status))
        self._store(ref, live, new, status=True)
        return self.must(ref)

    def remove(self, ref: Ref, *, orphan: bool = False) -> None:
        """Somebody deletes an object; its dependents go with it, or lose that owner where `orphan`."""
        gone = self._objects.pop(ref)
        uid = gone["metadata"]["uid"]
        for child_ref, child in list(self._objects.items()):
            owners = child["metadata"].get("ownerReferences", [])
            if not any(o["uid"] == uid for o in owners) or child_ref not in self._objects:
                continue
            rest = [o for o in owners if o["uid"] != uid]
            if not rest and not orphan:
                self.remove(child_ref)
                continue
            new = copied(child)
            new["metadata"]["ownerReferences"] = rest
            if not rest:
                del new["metadata"]["ownerReferences"]
            self._store(child_ref, child, new)

    # --- inside -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self.outage is not None:
            raise self.outage
        self.reads += 1

    def _begin(self, verb: Verb, ref: Ref) -> None:
        if self.outage is not None:
            raise self.outage
        self._attempts += 1
        if self._crash == (self._attempts, "before"):
            self._crash = None
            raise Crash(f"before write {self._attempts}: {verb} {ref}")
        if self.before_write is not None:
            self.before_write(verb, ref)
        if ref.kind in self.missing and verb != "delete":
            raise Invalid(f"{ref}: the API server knows no {ref.kind.plural}.{ref.kind.group}")

    def _end(self, verb: Verb, ref: Ref, *, changed: bool, obj: Object | None) -> Object:
        self.writes.append(Write(verb, ref, changed, copied(obj)))
        if self._crash == (self._attempts, "after"):
            self._crash = None
            raise Crash(f"after write {self._attempts}: {verb} {ref}")
        return obj or {}

    def _fenced(self, ref: Ref, fence: Fence) -> Object:
        live = self._objects.get(ref)
        if live is None:
            raise Conflict(f"{ref} is gone")
        meta = live["metadata"]
        version = meta["resourceVersion"]
        if fence.resource_version != version or fence.uid not in (None, meta["uid"]):
            raise Conflict(f"{ref} has changed: it is at {version}, not {fence.resource_version}")
        return live

    def _create(self, manifest: Object, *, ours: bool = True) -> Object:
        ref = ref_of(manifest)
        if ref in self._objects:
            raise Conflict(f"{ref} exists already")
        if ref.kind.namespaced != bool(ref.namespace):
            raise Invalid(f"{ref}: the namespace is wrong for this type")
        if "resourceVersion" in manifest["metadata"]:
            raise Invalid(f"{ref}: resourceVersion should not be set on objects to be created")
        obj = _intent(manifest)
        now = dt.datetime.fromtimestamp(self.clock.now(), dt.UTC)
        obj["metadata"] |= {
            "uid": str(uuid.uuid4()),
            "resourceVersion": str(next(self._versions)),
            "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if ref.kind in WITH_GENERATION:
            obj["metadata"]["generation"] = 1
        self.server_defaults(obj)
        self._objects[ref] = obj
        if ours:
            self._intents[ref, obj["metadata"]["uid"]] = _intent(manifest)
        return copied(obj)

    def _store(self, ref: Ref, live: Object, new: Object, *, status: bool = False) -> bool:
        """Accept `new` in place of `live`; the resourceVersion moves only on change."""
        obj = copied(new)
        if status or ref.kind in WITH_STATUS:
            spec, state = (live, new) if status else (new, live)
            obj = _but(spec, "status") | ({"status": copied(state["status"])} if "status" in state else {})
        meta, old = obj["metadata"], live["metadata"]
        for name in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            if name in old:
                meta[name] = old[name]
        self.server_defaults(obj)
        _refuse_immutable(ref, live, obj)
        if obj == live:
            return False
        spec_changed = _but(obj, "metadata", "status") != _but(live, "metadata", "status")
        if ref.kind in WITH_GENERATION and spec_changed:
            meta["generation"] = old["generation"] + 1
        meta["resourceVersion"] = str(next(self._versions))
        self._objects[ref] = obj
        return True


def _but(obj: Mapping[str, Any], *names: str) -> Object:
    return copied({k: v for k, v in obj.items() if k not in names})


def _intent(manifest: Object) -> Object:
    """The fields an applier may own."""
    out = copied(manifest)
    if kind_of(manifest) in WITH_STATUS:
        out.pop("status", None)
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        out["metadata"].pop(name, None)
    return out


def _refuse_immutable(ref: Ref, live: Object, new: Object) -> None:
    if ref.kind == CONTROLLER_REVISION and live.get("data") != new.get("data"):
        raise Invalid(f"{ref}: data is immutable")
    if ref.kind == DEPLOYMENT and live["spec"].get("selector") != new["spec"].get("selector"):
        raise Invalid(f"{ref}: spec.selector is immutable")


def _defaults(obj: Object) -> None:
    """Some of what the server fills in, so that a live object never equals its manifest by luck."""
    kind = kind_of(obj)
    spec = obj.get("spec", {})
    if kind == DEPLOYMENT:
        spec.setdefault("replicas", 1)
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("strategy", {"type": "RollingUpdate"})
        for container in spec.get("template", {}).get("spec", {}).get("containers", []):
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("imagePullPolicy", "IfNotPresent")
    elif kind == SERVICE:
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("clusterIP", f"10.96.0.{int(uuid.UUID(obj['metadata']['uid']).int % 250) + 2}")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])
