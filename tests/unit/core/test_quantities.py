"""Is a manifest already what is live?"""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.objects import DEPLOYMENT, Object, ref_of
from penstock.core.quantities import same
from tests.scenario import NAMESPACE, Scenario, spec
from tests.unit.core.test_story import healthy


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1024Mi"}}),
        ({"limits": {"cpu": "0.5"}}, {"limits": {"cpu": "500m"}}),
        ({"limits": {"nvidia.com/gpu": 1}}, {"limits": {"nvidia.com/gpu": "1"}}),
        ({"requests": {"memory": "1e3"}}, {"requests": {"memory": "1k"}}),
        ({"requests": {}}, {}),
    ],
)
def test_an_amount_written_otherwise_is_the_same(wanted: Object, live: Object) -> None:
    assert same({"resources": wanted}, {"resources": live})
    assert not same({"resources": wanted | {"limits": {"cpu": "3"}}}, {"resources": live})


def test_the_size_of_a_volume_is_an_amount() -> None:
    assert same({"emptyDir": {"sizeLimit": "1024Mi"}}, {"emptyDir": {"sizeLimit": "1Gi"}})


@pytest.mark.parametrize(
    ("wanted", "live"),
    [("10.0.0.1", "10.0.0.2"), ("1.0", "1"), ("1k", "1000"), ("...", "."), ("1", 1), ("1.2.3", None)],
)
def test_elsewhere_a_text_that_looks_like_an_amount_is_a_text(wanted: Any, live: Any) -> None:
    assert not same({"env": [{"name": "ADDRESS", "value": wanted}]}, {"env": [{"name": "ADDRESS", "value": live}]})
    assert same({"value": wanted}, {"value": wanted})


def test_what_is_no_amount_where_one_belongs_is_a_difference_and_no_defect() -> None:
    assert not same({"resources": {"limits": {"cpu": "1.2.3"}}}, {"resources": {"limits": {"cpu": "4.5.6"}}})


def test_what_is_empty_may_be_left_out_and_nothing_else() -> None:
    assert same({"annotations": {}, "args": []}, {})
    assert not same({"resources": {"limits": {"cpu": "1"}}}, {})


def test_an_address_edited_by_hand_is_put_right() -> None:
    scenario = Scenario()
    scenario.apply(spec(template={"env": [{"name": "ADDRESS", "value": "10.0.0.1"}]}))
    scenario.run_until(healthy)

    def address() -> str:
        return str(next(e["value"] for e in _server(scenario)["env"] if e["name"] == "ADDRESS"))

    def meddle(deployment: Object) -> None:
        for variable in deployment["spec"]["template"]["spec"]["containers"][0]["env"]:
            if variable["name"] == "ADDRESS":
                variable["value"] = "10.0.0.2"

    scenario.cluster.edit(ref_of(scenario.cluster.all(DEPLOYMENT, NAMESPACE)[0]), meddle)
    assert address() == "10.0.0.2"
    scenario.tick()
    assert address() == "10.0.0.1"


def _server(scenario: Scenario) -> Object:
    (deployment,) = scenario.cluster.all(DEPLOYMENT, NAMESPACE)
    server: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return server
