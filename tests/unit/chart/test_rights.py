"""What the operator may do: enough, and nothing more."""

from __future__ import annotations

from typing import Any

from tests.unit.chart.rendering import Render, Rendered

ACCOUNT = {"kind": "ServiceAccount", "name": "penstock", "namespace": "penstock-system"}
WRITES = {"create", "update", "patch", "delete", "deletecollection"}


def rights(roles: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Verbs by `group/resource` of some roles."""
    found: dict[str, set[str]] = {}
    for role in roles:
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return found


def operators(rendered: Rendered) -> dict[str, set[str]]:
    """Verbs of the operator's account, all its roles together."""
    bound = {
        (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        for kind in ("ClusterRoleBinding", "RoleBinding")
        for binding in rendered.all(kind)
        if ACCOUNT in binding["subjects"]
    }
    roles = [r for kind in ("ClusterRole", "Role") for r in rendered.all(kind)]
    return rights([r for r in roles if (r["kind"], r["metadata"]["name"]) in bound])


def test_a_spec_is_never_written(render: Render) -> None:
    may = operators(render())

    assert may["penstock.dev/modeldeployments"] == {"get", "list", "watch"}
    assert may["penstock.dev/modeldeployments/status"] == {"get", "update", "patch"}


def test_secrets_cannot_be_listed(render: Render) -> None:
    assert operators(render())["/secrets"] == {"get", "create", "patch"}


def test_pods_can_be_annotated_and_not_made_or_killed(render: Render) -> None:
    assert operators(render())["/pods"] & WRITES == {"patch"}


def test_what_a_model_is_made_of_can_be_made_and_removed(render: Render) -> None:
    may = operators(render())

    for resource in (
        "apps/deployments",
        "apps/controllerrevisions",
        "/services",
        "/configmaps",
        "gateway.networking.k8s.io/httproutes",
        "penstock.dev/rolloutanalyses",
    ):
        assert may[resource] >= {"get", "list", "watch", "create", "patch", "delete"}, resource


def test_nothing_is_granted_by_wildcard(render: Render) -> None:
    for kind in ("ClusterRole", "Role"):
        for role in render(watchNamespaces=["ml"]).all(kind) + render().all(kind):
            for rule in role["rules"]:
                assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_only_the_charts_own_runtimes_can_be_changed(render: Render) -> None:
    (rule,) = (r for r in render().one("ClusterRole")["rules"] if r.get("resourceNames"))

    assert rule["resources"] == ["clustermodelruntimes"]
    assert rule["resourceNames"] == ["onnxruntime"]
    assert rule["verbs"] == ["patch"]


def test_leases_are_touched_in_the_own_namespace_only(render: Render) -> None:
    rendered = render()

    assert "coordination.k8s.io/leases" not in rights(rendered.all("ClusterRole"))
    leader = rendered.one("Role", "penstock-leader")
    assert leader["metadata"]["namespace"] == "penstock-system"
    create, hold = leader["rules"]
    assert (create["resources"], create["verbs"]) == (["leases"], ["create"])
    assert (hold["resources"], hold["resourceNames"], hold["verbs"]) == (["leases"], ["penstock"], ["get", "update"])
    assert rendered.env()["PENSTOCK_LEASE_NAME"] == "penstock"


def test_namespaced_mode_has_no_rights_elsewhere(render: Render) -> None:
    rendered = render(watchNamespaces=["ml", "fraud"])

    assert rights([rendered.one("ClusterRole")]).keys() == {"penstock.dev/clustermodelruntimes"}
    roles = [r["metadata"] for r in rendered.all("Role")]
    assert {r["namespace"] for r in roles if r["name"] == "penstock"} == {"ml", "fraud"}
    assert operators(rendered) == operators(render())


def test_people_get_models_with_the_rights_they_have(render: Render) -> None:
    rendered = render()
    view, edit = rendered.one("ClusterRole", "penstock-view"), rendered.one("ClusterRole", "penstock-edit")

    assert not WRITES & set().union(*rights([view]).values())
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert "penstock.dev/modeldeployments/status" not in rights([edit])
    assert "ClusterRole" in render(rbac={"aggregate": False}).kinds()
    assert len(render(rbac={"aggregate": False}).all("ClusterRole")) == 1


def test_an_admin_can_bring_own_roles(render: Render) -> None:
    kinds = render(rbac={"create": False}).kinds()

    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & kinds
