"""Wrong manifests are refused, at apply, with words that people understand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.integration.manifests import collection, merged, smallest
from tests.integration.rest import Json, Refused, Rest

CASES: list[Json] = yaml.safe_load(Path(__file__).with_name("wrong_manifests.yaml").read_text())

UNREADABLE = ("should match", "Internal error", "evaluating rule", "no such key")


def test_no_case_is_told_twice() -> None:
    assert len({case["what"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["what"]))
def test_a_wrong_manifest_is_refused_in_words_that_people_understand(case: Json, rest: Rest, namespace: str) -> None:
    kind = case.get("kind", "ModelDeployment")
    with pytest.raises(Refused) as refusal:
        rest.create(collection(kind, namespace), merged(smallest(kind), case["wrong"]))
    message = str(refusal.value)
    assert refusal.value.code in (400, 422)
    for part in case["says"]:
        assert part in message
    for part in (*UNREADABLE, case.get("never", UNREADABLE[0])):
        assert part not in message


@pytest.mark.parametrize("kind", ["ModelDeployment", "ClusterModelRuntime", "RolloutAnalysis"])
def test_what_the_wrong_manifests_are_bent_from_is_good(kind: str, rest: Rest, namespace: str) -> None:
    made = rest.create(collection(kind, namespace), smallest(kind), dry_run=True)
    assert made["metadata"]["name"] == smallest(kind)["metadata"]["name"]
