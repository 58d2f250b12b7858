"""When: what happens in the story."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from e2e.tests.cluster import Object
from e2e.tests.manifests import MODEL, changed
from e2e.tests.manifests import source as source_of
from e2e.tests.story import Story


class When:
    """Actions of users, of admins, and of bad luck. Each begins a new chapter: `then` looks at what follows it."""

    def __init__(self, story: Story) -> None:
        """For one story."""
        self._story = story

    def applies(self, model: str = "", *, source: Mapping[str, Any] | None = None, **changes: Any) -> None:
        """The user applies the spec with another model from the zoo, other fields of spec.model, or other changes."""
        story = self._story
        fields: dict[str, Any] = {**({"uri": source_of(model)} if model else {}), **(source or {})}
        change = {**changes, **({"model": fields} if fields else {})}
        if model:
            story.provide(model)
        story.tell(f"when   the user applies {model or change}")
        story.apply(changed(story.spec, change))

    def undoes_it(self) -> None:
        """The user applies what was applied before."""
        self._story.tell("when   the user undoes it")
        self._story.apply(self._story.before)

    def somebody_else_has_a_service_of_that_name(self) -> Object:
        """A Service named like the model, without an owner; returns it as it is stored."""
        self._chapter("somebody else has a Service of that name")
        manifest = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": MODEL, "namespace": self._story.namespace},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "other"}},
        }
        return self._story.cluster.apply(manifest)

    def they_take_it_away(self) -> None:
        """The Service of somebody else goes."""
        self._chapter("the other Service goes")
        self._story.cluster.delete("Service", self._story.namespace, MODEL)

    def deletes_the_model(self) -> None:
        """`kubectl delete mdep`."""
        self._chapter("the user deletes the ModelDeployment")
        self._story.cluster.delete("ModelDeployment", self._story.namespace, MODEL)

    def restarts_the_pods(self) -> None:
        """`kubectl rollout restart` of the model's Deployments."""
        self._chapter("an admin restarts the pods")
        story = self._story
        restarted = {"kubectl.kubernetes.io/restartedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        change = {"spec": {"template": {"metadata": {"annotations": restarted}}}}
        for deployment in story.cluster.all("Deployment", story.namespace, f"penstock.dev/model={MODEL}"):
            story.cluster.patch("Deployment", story.namespace, deployment["metadata"]["name"], change)

    def status_is_wiped(self) -> None:
        """The status is lost, as by a restore from a backup."""
        self._chapter("the status is lost")
        story, remove = self._story, [{"op": "remove", "path": "/status"}]
        story.seen(story.cluster.patch("ModelDeployment", story.namespace, MODEL, remove, "status"))

    def operator_is_deleted(self) -> None:
        """`kubectl delete pod` of the operator; the story's chapter goes on."""
        self._story.tell("when   the operator's pod is deleted")
        self._story.installation.delete_pods()

    def operator_is_killed(self) -> None:
        """The operator's pod is gone with no time for a last word; the story's chapter goes on."""
        self._story.tell("when   the operator's pod is killed")
        self._story.installation.kill_pods()

    def leader_is_killed(self) -> None:
        """The pod that holds the Lease is gone with no time for a last word; the story's chapter goes on."""
        leader = self._story.installation.leader()
        self._story.tell(f"when   the leader {leader} is killed")
        self._story.installation.kill_pods(leader)

    def operator_is_uninstalled(self) -> None:
        """`helm uninstall`."""
        self._chapter("the operator is uninstalled")
        installation = self._story.installation
        self._story.afterwards(lambda: installation.install(installation.usual()))
        installation.uninstall()

    def operator_is_installed_again(self) -> None:
        """`helm install`, as before."""
        self._chapter("the operator is installed again")
        self._story.installation.install(self._story.installation.usual())

    def operator_is_upgraded(self, values: Mapping[str, Any]) -> None:
        """`helm upgrade` with these values over the usual ones."""
        self._chapter(f"the operator is upgraded with {values}")
        self._story.installation.install({**self._story.installation.usual(), **values})

    def prometheus_goes(self) -> None:
        """Prometheus is scaled to 0."""
        self._chapter("Prometheus is scaled to 0")
        self._story.afterwards(self._story.installation.restore_prometheus)
        self._story.installation.scale_prometheus(0)

    def prometheus_comes_back(self) -> None:
        """Prometheus is scaled to 1 again."""
        self._chapter("Prometheus is scaled to 1")
        self._story.installation.scale_prometheus(1)

    def _chapter(self, what: str) -> None:
        self._story.tell(f"when   {what}")
        self._story.mark = time.monotonic()
