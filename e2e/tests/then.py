"""Then: what must be seen in the cluster's own objects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence

from e2e.tests.cluster import Object
from e2e.tests.expectation import Expectation
from e2e.tests.load import Load
from e2e.tests.manifests import MODEL, source
from e2e.tests.story import Story
from e2e.tests.timeline import Moment, runs, seen, weights

OWNED = (
    "Deployment", "ReplicaSet", "Pod", "Service", "ConfigMap", "Secret", "ControllerRevision", "HTTPRoute",
    "RolloutAnalysis",
)  # fmt: skip
"""Kinds of what the operator makes for a model, or what is made of that."""


class Then:
    """Sentences about the model. Those that return an Expectation must be awaited or watched over."""

    def __init__(self, story: Story) -> None:
        """For one story."""
        self._story = story

    # --- what is ------------------------------------------------------------------------------------

    def phase(self, phase: str) -> Expectation:
        """The operator has seen the spec, and says this phase."""
        return self._is(f"phase {phase}", lambda m: m.field("phase") == phase)

    def served_by(self, model: str) -> Expectation:
        """Healthy, with this model as the stable one."""
        uri = source(model)
        return self._is(
            f"Healthy, served by {model}",
            lambda m: m.field("phase") == "Healthy" and m.field("stable", "uri") == uri,
            give_up=lambda: "" if model == self._wanted() else self._refusal(),
        )

    def still_served_by(self, model: str) -> Expectation:
        """This model is the stable one, whatever the phase."""
        return self._is(f"{model} is stable", lambda m: m.field("stable", "uri") == source(model))

    def condition(self, type_: str, status: str, reason: str = "") -> Expectation:
        """A condition with this status, and this reason where given."""

        def holds(moment: Moment) -> bool:
            found = condition(moment, type_)
            return bool(found) and found["status"] == status and reason in ("", found.get("reason"))

        return self._is(f"condition {type_}={status} {reason}", holds)

    def no_condition(self, type_: str) -> Expectation:
        """The condition is absent."""
        return self._is(f"no condition {type_}", lambda m: not condition(m, type_))

    def weight(self, percent: int) -> Expectation:
        """The canary has had this weight since the latest action."""
        return self._was(f"weight {percent}", lambda m: m.field("traffic", "appliedWeight") == percent)

    def weight_is(self, percent: int) -> Expectation:
        """The canary has this weight at present."""
        return self._is(f"weight is {percent}", lambda m: m.field("traffic", "appliedWeight") == percent)

    def stage(self, stage: str) -> Expectation:
        """The rollout has been in this stage since the latest action."""
        return self._was(f"stage {stage}", lambda m: m.field("rollout", "stage") == stage)

    def canary(self, model: str) -> Expectation:
        """This model has been the canary since the latest action."""
        return self._was(f"{model} is the canary", lambda m: m.field("canary", "uri") == source(model))

    def rolled_back(self, gate: str = "", reason: str = "") -> Expectation:
        """Degraded: the newest spec was refused after it had had traffic; by this gate, for this reason."""
        return self._refused("RolledBack", gate, reason)

    def rejected(self, reason: str) -> Expectation:
        """Degraded: the newest spec was refused before it had any traffic, for this reason."""
        return self._refused("Rejected", "", reason)

    def message(self, pattern: str) -> Expectation:
        """The status message fits a regular expression."""
        return self._is(f"the message says /{pattern}/", lambda m: bool(re.search(pattern, m.field("message") or "")))

    def observed(self) -> Expectation:
        """The operator has seen the newest spec."""
        return self._is("the newest spec is seen", lambda _: True)

    def nothing_is_left(self) -> Expectation:
        """No object of the model exists any more, of any kind."""

        def problem() -> str:
            left = [f"{o['kind']} {o['metadata']['name']}" for kind in OWNED for o in self._owned(kind)]
            return f"left: {', '.join(left)}" if left else ""

        return self._story.expect(Expectation("then   nothing is left", problem, tell=self._story.tell))

    # --- what was -----------------------------------------------------------------------------------

    def weights_were(self, *expected: int) -> None:
        """The canary's weights since the latest action, in this order: none repeated, none skipped."""
        found = weights(self._story.model.since(self._story.mark))
        assert found == list(expected), f"weights over time were {found}, expected {list(expected)}"
        self._story.tell(f"then   the weights were {found}")

    def route_weights_were(self, *expected: int) -> None:
        """The canary's weights in the live HTTPRoute since the latest action, as the gateway got them."""
        canary = self._canary_since_mark()
        found = runs(_route_weight(m, canary) for m in self._story.route.since(self._story.mark) if m.live)
        assert found == list(expected), f"weights in the HTTPRoute were {found}, expected {list(expected)}"

    def route_gave_everything_to_stable(self) -> None:
        """Every version of the HTTPRoute since the latest action has the stable revision alone."""
        stable = self._story.model.now.field("stable", "revision")
        moments = [m for m in self._story.route.since(self._story.mark) if m.live]
        shares = [_route_weight(m, stable) for m in moments or [self._story.route.now]]
        assert set(shares) == {100}, f"stable {stable} had {shares} % in the HTTPRoute"

    def steps_were(self, *expected: int) -> None:
        """The indices of the steps since the latest action: none repeated, none skipped."""
        moments = self._story.model.since(self._story.mark)
        found = runs(m.field("rollout", "stepIndex") for m in moments if m.field("rollout", "stage") == "Stepping")
        assert found == list(expected), f"steps over time were {found}, expected {list(expected)}"

    def phases_were_only(self, *allowed: str) -> None:
        """No other phase was seen since the latest action."""
        found = runs(m.field("phase") for m in self._story.model.since(self._story.mark) if m.live)
        assert set(found) <= set(allowed), f"phases over time were {found}, allowed are {allowed}"

    def never_had_traffic(self, model: str) -> None:
        """Neither the status nor the route ever gave this canary anything since the latest action."""
        found = weights(self._story.model.since(self._story.mark))
        assert found == [0], f"{model} was given traffic: weights over time were {found}"
        revision = self._rejection().get("revision")
        shares = {_route_weight(m, revision) for m in self._story.route.since(0) if m.live}
        assert shares <= {0}, f"{model} was in the route with {shares}"

    def no_request_failed(self, load: Load) -> None:
        """The users' own count: every request was answered with 200. Ends the load."""
        tally = load.stop()
        assert not load.crash, f"the load generator ended: {load.crash!r}"
        assert tally.ok > 0, f"nothing was answered: {tally}"
        assert tally.failed == 0, f"{tally}; the first failures: {tally.failures}"
        self._story.tell(f"then   no request failed: {tally}")

    def outcomes_were(self, *expected: str) -> None:
        """How the rollouts ended, the first one first."""
        found = [entry["outcome"] for entry in reversed(self._story.model.now.field("history") or [])]
        assert found == list(expected), f"outcomes were {found}, expected {list(expected)}"

    def rejection_says(self, *patterns: str) -> None:
        """What is told of the refusal fits each of these regular expressions."""
        told = self._story.model.now.field("message") or ""
        for pattern in patterns:
            assert re.search(pattern, told), f"the message does not say /{pattern}/: {told}"
        self._story.tell(f"then   {told}")

    def deployments_of(self, count: int) -> Expectation:
        """So many revisions have a Deployment."""

        def problem() -> str:
            names = [d["metadata"]["name"] for d in self._owned("Deployment")]
            return "" if len(names) == count else f"there are Deployments {names}"

        sentence = f"then   {count} Deployment{'s' if count != 1 else ''}"
        return self._story.expect(Expectation(sentence, problem, tell=self._story.tell))

    # --- other objects ------------------------------------------------------------------------------

    def evidence_exists(self) -> Expectation:
        """A RolloutAnalysis has been written."""

        def problem() -> str:
            return "" if self._owned("RolloutAnalysis") else "there is none"

        return self._story.expect(Expectation("then   there is a RolloutAnalysis", problem, tell=self._story.tell))

    def has_all_of(self, *kinds: str) -> None:
        """At least one object of each kind belongs to the model."""
        missing = [kind for kind in kinds if not self._owned(kind)]
        assert not missing, f"the model has no {missing}"

    def there_is_no(self, kind: str) -> None:
        """No object of the kind belongs to the model."""
        found = [o["metadata"]["name"] for o in self._owned(kind)]
        assert not found, f"there are {kind} {found}"

    def pods(self) -> dict[str, str]:
        """Uid by name of the model's pods that are not on their way out."""
        return {
            pod["metadata"]["name"]: pod["metadata"]["uid"]
            for pod in self._owned("Pod")
            if not pod["metadata"].get("deletionTimestamp")
        }

    def pods_are_still(self, before: dict[str, str]) -> None:
        """Exactly these pods run, by uid, and none was restarted."""
        assert self.pods() == before
        restarts = [s["restartCount"] for p in self._owned("Pod") for s in p["status"]["containerStatuses"]]
        assert not any(restarts), f"containers were restarted: {restarts}"
        self._story.tell(f"then   the same {len(before)} pods run")

    def pods_are_others(self, before: dict[str, str]) -> Expectation:
        """None of these pods is left."""

        def problem() -> str:
            left = set(before.values()) & {pod["metadata"]["uid"] for pod in self._owned("Pod")}
            return f"{len(left)} of {len(before)} are left" if left else ""

        sentence = f"then   the {len(before)} pods are replaced"
        return self._story.expect(Expectation(sentence, problem, tell=self._story.tell))

    def ready_pods(self, count: int) -> Expectation:
        """So many pods of the model are ready."""

        def problem() -> str:
            ready = [
                pod["metadata"]["name"]
                for pod in self._owned("Pod")
                for c in pod.get("status", {}).get("conditions", ())
                if c["type"] == "Ready" and c["status"] == "True"
            ]
            return "" if len(ready) == count else f"ready are {ready}"

        return self._story.expect(Expectation(f"then   {count} pods are ready", problem, tell=self._story.tell))

    def images_of_pods(self, image: str) -> None:
        """All containers of the model's pods have this image."""
        pods = [pod for pod in self._owned("Pod") if not pod["metadata"].get("deletionTimestamp")]
        found = {c["image"] for pod in pods for c in (*pod["spec"]["containers"], *pod["spec"]["initContainers"])}
        assert found == {image}

    def operator_runs(self, suffix: str) -> None:
        """The operator's containers have an image that ends so."""
        found = {c["image"] for pod in self._story.installation.pods() for c in pod["spec"]["containers"]}
        assert found, "there is no operator"
        assert all(image.endswith(suffix) for image in found), f"the operator runs {found}"

    def digest_is(self, content: bytes) -> None:
        """The stable revision is locked to exactly these bytes: in the status, the record and the lock."""
        wanted = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert self._story.model.now.field("stable", "digest") == wanted
        revision = self._story.model.now.field("stable", "revision")
        locks = [c["data"].get("digest") for c in self._owned("ConfigMap") if c["metadata"]["name"].endswith(revision)]
        assert locks == [wanted]

    def status_does_not_say(self, secret: str) -> None:
        """No part of any status so far holds this text."""
        leaks = [m.status for m in self._story.model.since(0) if secret in json.dumps(m.status)]
        assert not leaks, f"{secret!r} is told in {leaks[0]}"

    def usual_traffic(self) -> Object:
        """`spec.traffic` as the stories usually have it."""
        return self._story.traffic()

    # --- inner --------------------------------------------------------------------------------------

    def _owned(self, kind: str) -> list[Object]:
        return self._story.cluster.all(kind, self._story.namespace, f"penstock.dev/model={MODEL}")

    def _is(
        self, sentence: str, holds: Callable[[Moment], bool], give_up: Callable[[], str] = lambda: ""
    ) -> Expectation:
        """About the latest version, once it speaks of the newest spec."""

        def problem() -> str:
            moment = self._story.model.now
            if moment.live is None:
                return "there is no ModelDeployment"
            if (moment.field("observedGeneration") or 0) < moment.live["metadata"]["generation"]:
                return (
                    f"the operator has not seen generation {moment.live['metadata']['generation']} yet: {told(moment)}"
                )
            return "" if holds(moment) else told(moment)

        return self._expect(sentence, problem, give_up)

    def _was(self, sentence: str, holds: Callable[[Moment], bool]) -> Expectation:
        """About any version since the latest action."""

        def problem() -> str:
            if seen(self._story.model.since(self._story.mark), holds):
                return ""
            return told(self._story.model.now)

        return self._expect(sentence, problem, self._refusal)

    def _expect(self, sentence: str, problem: Callable[[], str], give_up: Callable[[], str]) -> Expectation:
        story = self._story
        return story.expect(
            Expectation(f"then   {sentence}", problem, wait=story.model.wait, tell=story.tell, give_up=give_up)
        )

    def _refused(self, outcome: str, gate: str, reason: str) -> Expectation:
        def holds(moment: Moment) -> bool:
            rejection, history = self._rejection(moment), moment.field("history") or [{}]
            return bool(
                moment.field("phase") == "Degraded"
                and moment.field("canary") is None
                and history[0].get("outcome") == outcome
                and rejection.get("revision") == history[0].get("revision")
                and gate in ("", rejection.get("gate"))
                and reason in ("", rejection.get("reason"))
            )

        by = f" by gate {gate}" if gate else f" for {reason}" if reason else ""
        return self._is(f"{outcome}{by}", holds)

    def _wanted(self) -> str:
        """The model that the newest spec names, by its name in the zoo."""
        return str(self._story.spec["model"]["uri"].removeprefix("configmap://").partition("/")[0])

    def _refusal(self) -> str:
        """Says so where the newest spec was refused: waiting for it makes no sense any more."""
        moment = self._story.model.now
        if moment.live is None or moment.at < self._story.mark:
            return ""
        current = (moment.field("observedGeneration") or 0) >= moment.live["metadata"]["generation"]
        stalled = condition(moment, "Stalled")
        return "in vain, since it is refused" if current and stalled and self._rejection(moment) else ""

    def _rejection(self, moment: Moment | None = None) -> Object:
        found: Sequence[Object] = (moment or self._story.model.now).field("rejected") or [{}]
        return found[0]

    def _canary_since_mark(self) -> str | None:
        return next(
            (r for m in self._story.model.since(self._story.mark) if (r := m.field("canary", "revision"))), None
        )


def condition(moment: Moment, type_: str) -> Object:
    """A condition of the status; empty where it is absent."""
    return next((c for c in moment.field("conditions") or () if c["type"] == type_), {})


def told(moment: Moment) -> str:
    """The status in one line."""
    if moment.live is None:
        return "there is no ModelDeployment"
    rollout = moment.field("rollout") or {}
    return (
        f"phase {moment.field('phase')}, stage {rollout.get('stage')}, step {rollout.get('step')}, "
        f"weight {moment.field('traffic', 'appliedWeight')}, verdict {rollout.get('verdict')}, "
        f"ready {moment.field('ready')}: {moment.field('message')}"
    )


def _route_weight(moment: Moment, revision: str | None) -> int:
    """Percent that a version of the HTTPRoute gives to a revision."""
    for ref in (moment.live or {})["spec"]["rules"][0]["backendRefs"]:
        if revision and ref["name"] == f"{MODEL}-{revision}":
            return int(ref["weight"])
    return 0
