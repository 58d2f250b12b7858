"""What given, when and then share in one test: a namespace of its own, what is seen of the model, and its users."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from e2e.tests import zoo
from e2e.tests.cluster import Cluster, Object
from e2e.tests.expectation import Expectation
from e2e.tests.installation import Installation
from e2e.tests.load import Load, Target
from e2e.tests.manifests import MODEL, Gateway, config_map, hostname, model_deployment, through
from e2e.tests.timeline import Timeline

LABEL = "penstock.dev/e2e"


@dataclass
class Story:
    """One test's stage. Nothing here asserts anything."""

    cluster: Cluster
    installation: Installation
    gateway: Gateway
    namespace: str = field(default_factory=lambda: f"e2e-{uuid.uuid4().hex[:8]}")
    spec: Object = field(default_factory=dict)
    before: Object = field(default_factory=dict)
    """The spec applied before the latest one."""
    mark: float = 0.0
    """When the latest action was taken: expectations look at what was seen since (monotonic)."""
    loads: list[Load] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _restores: list[Callable[[], None]] = field(default_factory=list)

    def open(self) -> None:
        """Make the namespace and follow the model and its route."""
        self.cluster.apply(
            {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": self.namespace, "labels": {LABEL: "true"}}}
        )
        self.model = Timeline(self.cluster, "ModelDeployment", self.namespace, MODEL)
        self.route = Timeline(self.cluster, "HTTPRoute", self.namespace, MODEL)
        for timeline in (self.model, self.route):
            timeline.start()

    def afterwards(self, restore: Callable[[], None]) -> None:
        """What puts back, at the end, what an action took away from others too."""
        self._restores.append(restore)

    def close(self) -> None:
        """Stop the users, put everything back, and let the namespace go with all that is in it."""
        for load in self.loads:
            load.stop()
        for timeline in (self.model, self.route):
            timeline.stop()
        for restore in reversed(self._restores):
            restore()
        self.cluster.delete("Namespace", "", self.namespace)

    def tell(self, what: str) -> None:
        """One line of the story, for whoever follows it live."""
        print(f"    {time.monotonic() - self.began:6.1f} s  {what}", flush=True)

    def apply(self, spec: Object, name: str = MODEL) -> Object:
        """Apply a ModelDeployment as a user does."""
        self.mark = time.monotonic()
        self.before, self.spec = self.spec, spec
        return self.seen(self.cluster.apply(model_deployment(self.namespace, spec, name)))

    def seen(self, written: Object) -> Object:
        """Go on once this version of the model is part of what is seen of it."""
        if written["metadata"]["name"] == MODEL:
            self.model.catch_up(written["metadata"]["resourceVersion"])
        return written

    def provide(self, model: str) -> None:
        """Put a model's file into the namespace."""
        self.cluster.apply(config_map(self.namespace, model, zoo.model(model)))

    def traffic(self) -> Object:
        """`spec.traffic` of this story's models."""
        return through(self.gateway, self.namespace)

    def expect(self, expectation: Expectation) -> Expectation:
        """Remember it, so that one that nobody awaited is found."""
        self.expectations.append(expectation)
        return expectation

    def start_load(self, rate: float, *, labels: bool) -> Load:
        """Users who come through the gateway, or through the API server's proxy where the model has no gateway."""
        routed = self.spec["traffic"].get("router") == "GatewayAPI"
        load = Load(self.cluster, self.namespace, MODEL, self._target(routed), rate, labels)
        self.loads.append(load)
        load.start()
        return load

    def _target(self, routed: bool) -> Target:
        path = f"v2/models/{MODEL}/infer"
        if routed:
            return Target(f"http://127.0.0.1:{self.gateway.port}/{path}", hostname(self.namespace))
        host = self.cluster.access.host
        inside = f"api/v1/namespaces/{self.namespace}/services/{MODEL}:http/proxy"
        return Target(f"{host}/{inside}/{path}", through_api_server=True)
