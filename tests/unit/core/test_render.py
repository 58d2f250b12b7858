"""What a revision's pods look like: what the runtime gives, what the user asks for, what nobody can loosen."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.objects import Object
from penstock.core.render import Owner, Unrenderable, freeze
from tests.fakes.copying import copied
from tests.scenario import RUNTIME, spec

OWNER = Owner("fraud", "ml", "uid-1")
DEFAULTS = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}}


def pod_of(wanted: dict[str, Any] | None = None, **pod: Any) -> Object:
    runtime: Object = copied(RUNTIME)
    runtime["spec"]["template"]["spec"].update(pod)
    frozen = freeze(OWNER, wanted or spec(), runtime, "agent:1", "c0ffee1234")
    rendered: Object = frozen["podTemplate"]["spec"]
    return rendered


@pytest.mark.parametrize(
    ("asked", "limits", "requests"),
    [
        ({}, {"memory": "2Gi"}, {"cpu": "100m", "memory": "128Mi"}),
        ({"limits": {"cpu": "50m"}}, {"cpu": "50m", "memory": "2Gi"}, {"memory": "128Mi"}),
        ({"limits": {"cpu": "50m", "memory": "64Mi"}}, {"cpu": "50m", "memory": "64Mi"}, None),
        ({"requests": {"memory": "4Gi"}}, None, {"cpu": "100m", "memory": "4Gi"}),
        (
            {"limits": {"nvidia.com/gpu": 1}},
            {"memory": "2Gi", "nvidia.com/gpu": 1},
            {"cpu": "100m", "memory": "128Mi"},
        ),
    ],
    ids=["nothing", "one limit", "limits below the default requests", "a request above the default limit", "a GPU"],
)
def test_resources_are_the_users_one_by_one_and_else_the_runtimes(
    asked: dict[str, Any], limits: dict[str, Any] | None, requests: dict[str, Any] | None
) -> None:
    server = {**RUNTIME["spec"]["template"]["spec"]["containers"][0], "resources": DEFAULTS}
    container = pod_of(spec(resources=asked), containers=[server])["containers"][0]
    assert container["resources"].get("limits") == limits
    assert container["resources"].get("requests") == requests


def test_no_container_of_a_runtime_gets_more_rights_than_the_server() -> None:
    loose = {"securityContext": {"privileged": True, "allowPrivilegeEscalation": True, "runAsNonRoot": False}}
    server = {**RUNTIME["spec"]["template"]["spec"]["containers"][0], **loose}
    helper = {"name": "helper", "image": "helper:1", **loose}
    pod = pod_of(containers=[server, helper], initContainers=[helper])
    for container in (*pod["initContainers"], *pod["containers"]):
        context = container["securityContext"]
        assert not context.get("privileged")
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "hostIPC"])
def test_a_runtime_that_asks_for_the_nodes_namespaces_is_refused(field: str) -> None:
    with pytest.raises(Unrenderable, match=field):
        pod_of(None, **{field: True})
