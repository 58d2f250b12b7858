"""Wrong specs: refused at apply where a schema can see it, else a condition that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.tests.cluster import Refused
from e2e.tests.given import Given
from e2e.tests.story import Story
from e2e.tests.then import Then
from e2e.tests.when import When

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown scheme": ({"source": {"uri": "ftp://models/7"}}, "must begin with one of http://"),
    "unknown field": ({"replica": 3}, "field not declared|unknown field"),
    "weight of 100": ({"rollout": {"steps": [{"weight": 100}]}}, "100 % follows by itself"),
    "two kinds of step": ({"rollout": {"steps": [{"weight": 5, "hold": "1m"}]}}, "exactly one of"),
    "falling weights": ({"rollout": {"steps": [{"weight": 50}, {"weight": 5}]}}, "must rise"),
    "no gateway named": ({"traffic": {"router": "GatewayAPI", "parentRefs": None}}, "needs parentRefs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_spec_that_cannot_be_right_is_refused_at_apply(what: str, given: Given, story: Story) -> None:
    change, pattern = REFUSED[what]
    with pytest.raises(Refused, match=pattern):
        given.model("good-v1", **change)


STALLED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such runtime": ({"runtime": "nowhere"}, "NoSupportingRuntime", "no ClusterModelRuntime 'nowhere'.*onnxruntime"),
    "no runtime for the format": ({"source": {"format": "pickle"}}, "NoSupportingRuntime", "format 'pickle'"),
    "no such secret": (
        {"source": {"credentials": {"secretRef": {"name": "nowhere"}}}},
        "SecretNotUsable",
        "Secret .*/nowhere does not exist",
    ),
    "a weight that pods cannot make": (
        {
            "traffic": {"router": "Replicas", "parentRefs": None, "hostnames": None},
            "rollout": {"steps": [{"weight": 5}]},
            "source": {"format": "onnx"},
        },
        "WeightUnreachable",
        "cannot give a canary 5 %.*GatewayAPI",
    ),
}


@pytest.mark.parametrize("what", STALLED)
def test_what_no_schema_can_see_becomes_a_condition_and_stable_serves_on(
    what: str, given: Given, when: When, then: Then
) -> None:
    change, reason, pattern = STALLED[what]
    given.model("good-v1").is_healthy()
    when.applies(**change)
    then.condition("Stalled", "True", reason).within(30)
    then.condition("Available", "True").now()
    then.message(pattern).now()
    then.phase("Degraded").now()
    then.still_served_by("good-v1").now()
    when.undoes_it()
    then.served_by("good-v1").within(30)
    then.no_condition("Stalled").now()


def test_a_gateway_that_does_not_exist_is_told_and_a_right_one_serves(given: Given, when: When, then: Then) -> None:
    given.model("good-v1", traffic={"parentRefs": [{"name": "nowhere"}]})
    then.message("No gateway has taken up the HTTPRoute: is spec.traffic.parentRefs right").within(90)
    then.phase("Progressing").now()
    when.applies(traffic=then.usual_traffic())
    then.served_by("good-v1").within(60)


def test_an_object_of_somebody_else_is_never_seized(given: Given, when: When, then: Then, story: Story) -> None:
    theirs = when.somebody_else_has_a_service_of_that_name()
    given.model("good-v1")
    then.condition("Stalled", "True", "NameConflict").within(30)
    then.message("Service .*iris.* belongs to somebody else").now()
    then.phase("Degraded").for_the_next(5)
    assert story.cluster.get("Service", story.namespace, "iris") == theirs
    when.they_take_it_away()
    then.served_by("good-v1").within(90)
