"""What counts as seen: each outcome as it should be passes, each thing missing is complained about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from e2e.demo.chapters import BACK, CORRUPT, FIRST, GOOD, RENAMED, SCRAMBLED, SLOW, Chapter
from e2e.demo.verify import Objects, Seen, complaints
from tests.unit.demo.states import NAMES, analysis, at_rest, deployment, ended, refused, route, stepping


def promoted() -> Seen:
    """v2, promoted over all steps."""
    trial = [stepping(float(weight), "v1", "v2", weight) for weight in (0, 5, 25, 50, 100)]
    end = replace(
        at_rest(200.0, "v2", [ended("v2", "Promoted", "Promoted")]),
        analysis=analysis("v2", "Passed", accuracy="Pass"),
    )
    objects = Objects([deployment("v1"), deployment("v2")], route(v1=0, v2=100))
    return Seen([*trial, end], objects, NAMES["v2"], answered=5000, seconds=50)


def refusal(chapter: Chapter, outcome: str, reason: str, gate: str = "") -> Seen:
    """A bad version, gone; v2 serves."""
    trial = [stepping(1.0, "v2", chapter.version, 5)] if gate else []
    end = at_rest(
        20.0,
        "v2",
        [ended(chapter.version, outcome, reason)],
        phase="Degraded",
        rejected=[refused(chapter.version, reason, gate)],
    )
    if gate:
        end = replace(end, analysis=analysis(chapter.version, "Failed", **{gate: "Fail"}))
    objects = Objects([deployment("v2")], route(v2=1))
    return Seen([*trial, end], objects, NAMES[chapter.version], answered=90 if gate else 0, seconds=20)


def test_a_first_deployment_that_is_healthy() -> None:
    end = at_rest(9.0, "v1", [ended("v1", "Promoted", "Promoted")])
    seen = Seen([end], Objects([deployment("v1")], route(v1=1)), NAMES["v1"], answered=0, seconds=9)
    assert complaints(FIRST, seen) == ()


def test_a_promotion_over_all_steps() -> None:
    assert complaints(GOOD, promoted()) == ()


@pytest.mark.parametrize(("chapter", "gate"), [(SCRAMBLED, "accuracy"), (SLOW, "latency")])
def test_a_rollback_by_the_right_gate(chapter: Chapter, gate: str) -> None:
    assert complaints(chapter, refusal(chapter, "RolledBack", "GateFailed", gate)) == ()


@pytest.mark.parametrize(
    ("chapter", "reason"),
    [(CORRUPT, "ModelLoadFailed"), (CORRUPT, "InvalidModel"), (RENAMED, "SchemaIncompatible")],
)
def test_a_rejection_before_any_request(chapter: Chapter, reason: str) -> None:
    assert complaints(chapter, refusal(chapter, "Rejected", reason)) == ()


def test_going_back_at_once() -> None:
    end = at_rest(5.0, "v1", [ended("v1", "Promoted", "Reverted")])
    seen = Seen([end], Objects([deployment("v1")], route(v1=100, v2=0)), NAMES["v1"], answered=3, seconds=5)
    assert complaints(BACK, seen) == ()
    assert "it took 31 s, more than 30 s" in complaints(BACK, replace(seen, seconds=31))


def test_going_back_over_steps_is_not_at_once() -> None:
    end = at_rest(5.0, "v1", [ended("v1", "Promoted", "Reverted")])
    sightings = [stepping(1.0, "v2", "v1", 25), end]
    seen = Seen(sightings, Objects([deployment("v1")], route(v1=1)), NAMES["v1"], answered=3, seconds=5)
    assert complaints(BACK, seen) == ("it got 25 % of the traffic, though none was due",)


def test_a_skipped_step_is_seen() -> None:
    seen = promoted()
    without = [s for s in seen.sightings if s.weight != 25]
    assert complaints(GOOD, replace(seen, sightings=without)) == ("the route never had a weight of 25 %",)


def test_a_repeated_step_is_seen() -> None:
    seen = promoted()
    again = [*seen.sightings[:-1], stepping(60.0, "v1", "v2", 25), seen.end]
    assert complaints(GOOD, replace(seen, sightings=again)) == ("the weights did not rise: 5, 25, 50, 25 %",)


def test_the_wrong_end_is_seen() -> None:
    seen = refusal(SCRAMBLED, "RolledBack", "GateFailed", "latency")
    assert complaints(SCRAMBLED, seen) == (
        "the gate latency refused it, not accuracy",
        "the RolloutAnalysis holds None for gate accuracy, not Fail",
    )
    assert any("its outcome is RolledBack" in text for text in complaints(GOOD, replace(seen, revision=NAMES["v3"])))


def test_traffic_on_a_rejected_version_is_seen() -> None:
    seen = refusal(CORRUPT, "Rejected", "ModelLoadFailed")
    assert complaints(CORRUPT, replace(seen, answered=4)) == ("it answered 4 requests, though none was due",)


def test_pods_that_are_missing_and_a_route_that_points_elsewhere_are_seen() -> None:
    seen = promoted()
    objects = Objects([deployment("v2", ready=1)], route(v1=50, v2=50))
    found = complaints(GOOD, replace(seen, objects=objects))
    assert "the Deployment of the stable revision has 1 of 2 pods ready" in found
    assert any(text.startswith("the HTTPRoute sends traffic to") for text in found)


def test_a_status_that_contradicts_its_conditions_is_seen() -> None:
    seen = refusal(CORRUPT, "Rejected", "ModelLoadFailed")
    healthy_conditions = at_rest(0, "v2", []).model["status"]["conditions"]
    end = seen.end
    status = {**end.model["status"], "conditions": healthy_conditions}
    wrong = replace(end, model={**end.model, "status": status})
    found = complaints(CORRUPT, replace(seen, sightings=[wrong]))
    assert found == ("the condition Ready is True, not False", "the condition Stalled is absent, not True")
