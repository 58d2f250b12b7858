"""The CRDs on a real API server: what is accepted, filled in, kept, shown and scaled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.api.analysis import AnalysisStatus
from penstock.api.base import ApiModel
from penstock.api.modeldeployment import ModelDeployment
from penstock.api.schema import KINDS, inlined
from penstock.api.status import Status
from tests.integration.manifests import API, collection, merged, smallest
from tests.integration.rest import APPLY_PATCH, TABLE, Json, Refused, Rest

ROOT = Path(__file__).parents[2]

DOCUMENTED_DEFAULTS: Json = {
    "replicas": 1,
    "paused": False,
    "feedback": {"window": "7d"},
    "rollout": {
        "analysis": {
            "block": "60s",
            "soak": "10m",
            "warmUp": {"requests": 100, "period": "60s"},
            "alpha": 0.05,
            "beta": 0.05,
        },
        "maxDuration": "24h",
        "onInconclusive": "Hold",
        "onSchemaChange": "Block",
        "rollbackWindow": "7d",
        "scaleDownDelay": "30m",
        "progressDeadline": "10m",
        "revisionHistoryLimit": 10,
    },
    "traffic": {"router": "Replicas"},
}

FIVE_LINES = """\
apiVersion: penstock.dev/v1alpha1
kind: ModelDeployment
metadata: {name: fraud}
spec:
  model: {uri: s3://models/fraud/7}
"""


@pytest.mark.parametrize("model", KINDS, ids=lambda model: model.__name__)
def test_every_kind_is_established_under_its_names(model: Any, rest: Rest) -> None:
    resource = model.RESOURCE
    crd = rest.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{resource.name}")
    conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    served = {r["name"]: r for r in rest.get(API)["resources"]}
    assert served[resource.plural]["shortNames"] == [resource.short_name]
    assert served[resource.plural]["categories"] == ["penstock"]
    assert served[resource.plural]["namespaced"] == resource.namespaced
    assert (f"{resource.plural}/status" in served) == resource.has_status


def test_five_lines_are_enough_and_the_defaults_are_those_documented(rest: Rest, namespace: str) -> None:
    made = rest.create(collection("ModelDeployment", namespace), yaml.safe_load(FIVE_LINES))
    assert made["spec"] == {"model": {"uri": "s3://models/fraud/7"}, **DOCUMENTED_DEFAULTS}
    assert "status" not in made
    assert rest.warnings == []


def test_defaults_reach_into_parts_that_are_given_by_half(rest: Rest, namespace: str) -> None:
    given = {"spec": {"rollout": {"analysis": {"warmUp": {"requests": 5}}}, "traffic": {}, "feedback": {}}}
    made = rest.create(collection("ModelDeployment", namespace), merged(smallest(), given))
    changed = {"rollout": {"analysis": {"warmUp": {"requests": 5}}}}
    assert made["spec"] == {**smallest()["spec"], **merged(DOCUMENTED_DEFAULTS, changed)}


def test_the_example_of_the_reference_is_stored_as_it_is(rest: Rest, namespace: str) -> None:
    example = yaml.safe_load((ROOT / "docs/reference/example.yaml").read_text())
    made = rest.create(collection("ModelDeployment", namespace), example)
    assert made["spec"] == example["spec"]
    assert ModelDeployment.from_wire(made).to_wire()["spec"] == example["spec"]


def test_an_unknown_field_is_refused_under_strict_validation(rest: Rest, namespace: str) -> None:
    manifest = merged(smallest(), {"spec": {"replica": 4}})
    with pytest.raises(Refused, match=r'unknown field "spec\.replica"'):
        rest.create(collection("ModelDeployment", namespace), manifest, validation="Strict")


def test_an_unknown_field_is_warned_of_and_dropped_by_default(rest: Rest, namespace: str) -> None:
    manifest = merged(smallest(), {"spec": {"replica": 4}})
    made = rest.create(collection("ModelDeployment", namespace), manifest, validation="Warn")
    assert rest.warnings == ['unknown field "spec.replica"']
    assert "replica" not in made["spec"]


@pytest.mark.parametrize(("kind", "model"), [("ModelDeployment", Status), ("RolloutAnalysis", AnalysisStatus)], ids=str)
def test_a_status_with_every_field_is_kept_whole(kind: str, model: type[ApiModel], rest: Rest, namespace: str) -> None:
    whole = next(m for m in KINDS if m.__name__ == kind)
    status = sample(inlined(whole)["properties"]["status"])
    made = rest.create(collection(kind, namespace), smallest(kind))
    path = f"{collection(kind, namespace)}/{made['metadata']['name']}"
    written = rest.patch(f"{path}/status", {"status": status})
    assert written["status"] == status
    assert written["metadata"]["generation"] == made["metadata"]["generation"]
    assert model.from_wire(written["status"]).to_wire() == status


def sample(schema: Any) -> Any:
    """A value for a schema, with every field given."""
    match schema:
        case {"properties": properties}:
            return {name: sample(part) for name, part in properties.items()}
        case {"type": "array", "items": items}:
            return [sample(items)]
        case {"enum": [first, *_]}:
            return first
        case {"format": "date-time"}:
            return "2026-11-23T21:49:00Z"
        case {"type": "object"}:
            return {"anything": [1, {"a": "b"}]}
        case {"type": kind}:
            return {"string": "text", "integer": 1, "number": 0.5, "boolean": True}[kind]


def test_the_status_cannot_be_written_with_the_spec(rest: Rest, namespace: str) -> None:
    manifest = {**smallest(), "status": {"phase": "Healthy"}}
    assert "status" not in rest.create(collection("ModelDeployment", namespace), manifest)


def test_kubectl_get_tells_the_story(rest: Rest, namespace: str) -> None:
    objects = collection("ModelDeployment", namespace)
    rest.create(objects, smallest())
    status = {
        "phase": "Progressing",
        "message": "canary 25 % (step 2/3)",
        "ready": "4/4",
        "stable": {"revision": "b8d4f7c2xk"},
        "canary": {"revision": "c41f7c2xk9"},
        "traffic": {"appliedWeight": 25},
        "rollout": {"step": "2/3", "verdict": "InsufficientData"},
    }
    rest.patch(f"{objects}/fraud/status", {"status": status})
    table = rest.get(objects, accept=TABLE)
    shown = {c["name"]: c["priority"] for c in table["columnDefinitions"]}
    first = ["Name", "Phase", "Stable", "Canary", "Weight", "Step", "Verdict", "Ready", "Age", "Message"]
    assert list(shown) == first
    assert [name for name, priority in shown.items() if priority] == ["Message"]
    cells = dict(zip(shown, table["rows"][0]["cells"], strict=True))
    cells.pop("Age")
    assert cells == {
        "Name": "fraud",
        "Phase": "Progressing",
        "Stable": "b8d4f7c2xk",
        "Canary": "c41f7c2xk9",
        "Weight": 25,
        "Step": "2/3",
        "Verdict": "InsufficientData",
        "Ready": "4/4",
        "Message": "canary 25 % (step 2/3)",
    }


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("ClusterModelRuntime", ["Name", "Format", "Protocol", "Age"]),
        ("RolloutAnalysis", ["Name", "Model", "Canary", "Phase", "Verdict", "Age", "Message"]),
    ],
)
def test_the_other_kinds_have_their_columns(kind: str, columns: list[str], rest: Rest, namespace: str) -> None:
    table = rest.get(collection(kind, namespace), accept=TABLE)
    assert [c["name"] for c in table["columnDefinitions"]] == columns


def test_kubectl_scale_changes_the_replicas(rest: Rest, namespace: str) -> None:
    objects = collection("ModelDeployment", namespace)
    rest.create(objects, smallest())
    selector = "penstock.dev/model=fraud,penstock.dev/revision=b8d4f7c2xk"
    rest.patch(f"{objects}/fraud/status", {"status": {"replicas": 1, "selector": selector}})
    scale = rest.get(f"{objects}/fraud/scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 1, "selector": selector})
    rest.patch(f"{objects}/fraud/scale", {"spec": {"replicas": 4}})
    assert rest.get(f"{objects}/fraud")["spec"]["replicas"] == 4


def test_gates_are_merged_by_name_and_steps_are_replaced(rest: Rest, namespace: str) -> None:
    """Two appliers may each own a gate; nobody may own half a list of steps."""
    path = f"{collection('ModelDeployment', namespace)}/fraud"

    def apply(manager: str, rollout: Json) -> Json:
        body = merged(smallest(), {"spec": {"rollout": rollout}})
        answer = rest.patch(path, body, kind=APPLY_PATCH, manager=manager)
        result: Json = answer["spec"]["rollout"]
        return result

    errors, latency = ({"name": s, "compare": {"signal": s}} for s in ("errors", "latency"))
    apply("one", {"gates": [errors], "steps": [{"weight": 5}, {"weight": 50}]})
    both = apply("two", {"gates": [latency], "steps": [{"weight": 25}]})
    assert [gate["name"] for gate in both["gates"]] == ["errors", "latency"]
    assert [gate["required"] for gate in both["gates"]] == [True, True]
    assert both["steps"] == [{"weight": 25}]


def test_a_runtime_keeps_its_pod_template_word_for_word(rest: Rest, namespace: str) -> None:
    server = {"name": "server", "image": "triton:1", "args": ["--port=$(ports.http)", "$(POD_IP)"]}
    spec = {"containers": [server], "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}
    manifest = merged(smallest("ClusterModelRuntime"), {"spec": {"template": {"spec": spec}}})
    manifest["metadata"]["name"] = namespace  # cluster-wide, so it borrows a unique name
    made = rest.create(collection("ClusterModelRuntime", namespace), manifest)
    assert made["spec"]["template"]["spec"] == spec
    assert made["spec"]["protocol"] == "OpenInferenceV2"
    assert made["spec"]["modelLayout"] == "flat"
    assert made["spec"]["formats"] == [{"name": "onnx", "autoSelect": False}]


def test_an_analysis_keeps_plan_and_evidence_word_for_word(rest: Rest, namespace: str) -> None:
    objects = collection("RolloutAnalysis", namespace)
    plan = {"version": 1, "bounds": [[0.01, 0.012]], "levels": {"alpha": 0.05}}
    made = rest.create(objects, merged(smallest("RolloutAnalysis"), {"spec": {"plan": plan}}))
    path = f"{objects}/{made['metadata']['name']}/status"
    evidence = {"cursors": {"pod-a": [1, 2, 3]}, "gates": [[0, -12345678901, 7]], "empty": {}}
    written = rest.patch(path, {"status": {"seq": 1, "phase": "Running", "evidence": evidence}})
    assert (written["spec"]["plan"], written["status"]["evidence"]) == (plan, evidence)


def test_a_spec_stored_by_an_older_version_does_not_block_its_status(rest: Rest, namespace: str) -> None:
    """The operator must be able to say what is wrong: writing a status checks the status alone."""
    objects = collection("ModelDeployment", namespace)
    rest.create(objects, smallest())
    with pytest.raises(Refused, match="Unsupported value"):
        rest.patch(f"{objects}/fraud/status", {"status": {"phase": "Happy"}})
    assert rest.patch(f"{objects}/fraud/status", {"status": {"phase": "Degraded"}})["status"] == {"phase": "Degraded"}
