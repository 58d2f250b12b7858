"""Was the outcome really there? Pure: the sightings of a chapter and the cluster's objects in, complaints out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e2e.demo.chapters import Chapter, Expectation
from e2e.demo.journal import Sighting
from e2e.demo.settings import MODEL, uri_of
from penstock.api.analysis import AnalysisPhase
from penstock.api.status import Outcome, Phase, Verdict


@dataclass(frozen=True, slots=True)
class Objects:
    """What else the cluster holds for the model at the end of a chapter."""

    deployments: Sequence[Mapping[str, Any]]
    route: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known about a chapter when it is over.

    `revision` is the one that the chapter brought; `answered` counts its answers by the load generator.
    """

    sightings: Sequence[Sighting]
    objects: Objects
    revision: str
    answered: int
    seconds: float

    @property
    def end(self) -> Sighting:
        """The last sighting."""
        return self.sightings[-1]


def complaints(chapter: Chapter, seen: Seen) -> tuple[str, ...]:
    """Everything that is not as expected, in words; empty where the outcome was seen."""
    expect = chapter.expect
    return (
        *_status(expect, seen),
        *_record(expect, seen),
        *_weights(expect, seen),
        *_evidence(expect, seen),
        *_workload(seen),
        *_requests(expect, seen),
    )


def _status(expect: Expectation, seen: Seen) -> Iterator[str]:
    end = seen.end
    if end.phase != expect.phase:
        yield f"the phase is {end.phase}, not {expect.phase}"
    if end.stable_uri != uri_of(expect.stable):
        yield f"the stable revision serves {end.stable_uri or 'nothing'}, not {expect.stable}"
    wanted = {"Available": "True", "Ready": "True" if expect.phase is Phase.HEALTHY else "False"}
    if expect.phase is Phase.DEGRADED:
        wanted["Stalled"] = "True"
    found = {condition.type: condition.status.value for condition in end.status.conditions}
    for kind, status in wanted.items():
        if found.get(kind) != status:
            yield f"the condition {kind} is {found.get(kind, 'absent')}, not {status}"
    if expect.within_seconds and seen.seconds > expect.within_seconds:
        yield f"it took {seen.seconds:.0f} s, more than {expect.within_seconds:.0f} s"


def _record(expect: Expectation, seen: Seen) -> Iterator[str]:
    last = seen.end.last
    if last is None or last.revision != seen.revision:
        yield f"the history does not tell how revision {seen.revision} ended"
        return
    if last.outcome != expect.outcome:
        yield f"its outcome is {last.outcome} ({last.reason}), not {expect.outcome}"
    elif last.reason not in expect.reasons:
        yield f"the reason is {last.reason}, not {' or '.join(sorted(expect.reasons))}"
    rejection = seen.end.rejection_of(seen.revision)
    if expect.outcome is Outcome.PROMOTED:
        if rejection is not None:
            yield "the revision is among the rejected ones"
    elif rejection is None or not rejection.message:
        yield "the status does not say under `rejected` why"
    elif (rejection.gate or "") != expect.gate:
        yield f"the gate {rejection.gate or '(none)'} refused it, not {expect.gate or '(none)'}"


def _weights(expect: Expectation, seen: Seen) -> Iterator[str]:
    had = [weight for weight in weights(seen.sightings) if 0 < weight < 100]
    missing = [str(weight) for weight in expect.weights if weight not in had]
    if missing:
        yield f"the route never had a weight of {', '.join(missing)} %"
    if had != sorted(had):
        yield f"the weights did not rise: {', '.join(map(str, had))} %"
    if not expect.weights and had:
        yield f"it got {max(had)} % of the traffic, though none was due"


def weights(sightings: Sequence[Sighting]) -> list[int]:
    """The canary's weights in the order in which they were seen, without repeats."""
    had: list[int] = []
    for sighting in sightings:
        if not had or had[-1] != sighting.weight:
            had.append(sighting.weight)
    return had


def _evidence(expect: Expectation, seen: Seen) -> Iterator[str]:
    if not expect.is_measured:
        return
    evidence = seen.end.evidence
    if evidence is None or evidence.spec.canary != seen.revision:
        yield f"there is no RolloutAnalysis of revision {seen.revision}"
        return
    wanted = AnalysisPhase.PASSED if expect.outcome is Outcome.PROMOTED else AnalysisPhase.FAILED
    if evidence.status.phase != wanted:
        yield f"the RolloutAnalysis is {evidence.status.phase}, not {wanted}"
    verdicts = {gate.name: gate.verdict for gate in evidence.status.gates}
    if expect.gate and verdicts.get(expect.gate) != Verdict.FAIL:
        yield f"the RolloutAnalysis holds {verdicts.get(expect.gate)} for gate {expect.gate}, not Fail"


def _workload(seen: Seen) -> Iterator[str]:
    stable = seen.end.stable
    deployment = next((d for d in seen.objects.deployments if d["metadata"]["name"] == f"{MODEL}-{stable}"), None)
    wanted = seen.end.model["spec"].get("replicas", 1)
    ready = (deployment or {}).get("status", {}).get("readyReplicas", 0)
    if ready < wanted:
        yield f"the Deployment of the stable revision has {ready} of {wanted} pods ready"
    shares = route_weights(seen.objects.route)
    if {name for name, weight in shares.items() if weight} != {f"{MODEL}-{stable}"}:
        yield f"the HTTPRoute sends traffic to {shares or 'nothing'}, not to the stable revision alone"


def route_weights(route: Mapping[str, Any] | None) -> dict[str, int]:
    """Service name -> weight, over all rules of an HTTPRoute."""
    rules = (route or {}).get("spec", {}).get("rules", [])
    return {ref["name"]: ref.get("weight", 1) for rule in rules for ref in rule.get("backendRefs", [])}


def _requests(expect: Expectation, seen: Seen) -> Iterator[str]:
    if expect.gets_requests and not seen.answered:
        yield "the load generator never got an answer from it"
    if not expect.gets_requests and seen.answered:
        yield f"it answered {seen.answered} requests, though none was due"
