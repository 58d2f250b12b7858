"""Models come from files over HTTP, from S3 with the right keys only, and from volumes."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from e2e.cluster.addons import put
from e2e.tests import surroundings, zoo
from e2e.tests.cluster import Object
from e2e.tests.expectation import Expectation
from e2e.tests.given import Given
from e2e.tests.installation import RUNTIME_IMAGE
from e2e.tests.manifests import FILE
from e2e.tests.story import Story
from e2e.tests.then import Then
from e2e.tests.when import When

LOAD_SECONDS = 90


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, str]:
    """A model's file, and a name for it that no other test uses."""
    file = tmp_path / FILE
    file.write_bytes(zoo.model("good-v2"))
    return file, f"{uuid.uuid4().hex[:10]}.onnx"


def test_a_model_is_fetched_over_http_and_its_bytes_are_locked(
    stored: tuple[Path, str], given: Given, when: When, then: Then
) -> None:
    file, name = stored
    put("files", file, name)
    given.model(source={"uri": f"{surroundings.FILES_URL}/{name}"})
    then.phase("Healthy").within(LOAD_SECONDS)
    then.digest_is(zoo.model("good-v2"))
    put("files", _other(file), name)
    when.applies(replicas=3)
    then.message("2 of 3 pods ready. SourceChanged: .*has changed").within(LOAD_SECONDS)
    then.ready_pods(2).for_the_next(5)


def _other(file: Path) -> Path:
    other = file.with_name("other.onnx")
    other.write_bytes(zoo.model("good-v1"))
    return other


def test_a_file_that_is_not_there_is_rejected_by_name(given: Given, when: When, then: Then) -> None:
    given.model("good-v1").is_healthy()
    when.applies(source={"uri": f"{surroundings.FILES_URL}/no-such-file.onnx"})
    then.rejected("ModelNotFound").within(LOAD_SECONDS)
    then.rejection_says("no-such-file.onnx")


def test_s3_takes_the_right_key_and_refuses_a_wrong_one(
    stored: tuple[Path, str], story: Story, given: Given, when: When, then: Then
) -> None:
    file, name = stored
    put("s3", file, f"{surroundings.S3_BUCKET}/{name}")
    right = story.cluster.get("Secret", surroundings.STORES, surroundings.S3_SECRET)
    assert right is not None
    wrong = {**right["data"], "AWS_SECRET_ACCESS_KEY": "bm90IHRoZSBrZXk="}
    for secret, data in (("right", right["data"]), ("wrong", wrong)):
        story.cluster.apply(_secret(story.namespace, secret, data))
    uri = f"s3://{surroundings.S3_BUCKET}/{name}"
    given.model(source={"uri": uri, "credentials": {"secretRef": {"name": "wrong"}}})
    then.rejected("AccessDenied").within(LOAD_SECONDS)
    then.status_does_not_say("not the key")
    when.applies(source={"credentials": {"secretRef": {"name": "right"}}})
    then.phase("Healthy").within(LOAD_SECONDS)
    then.digest_is(zoo.model("good-v2"))


def _secret(namespace: str, name: str, data: Object) -> Object:
    """Labelled for use by models, as its owner must do."""
    labels = {"penstock.dev/usable": "true"}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def test_a_model_is_taken_from_a_volume(story: Story, given: Given, then: Then) -> None:
    story.provide("good-v1")
    volume = _claim(story)
    _fill(story, volume)
    given.model(source={"uri": f"pvc://{volume}/models/iris/{FILE}"})
    then.phase("Healthy").within(LOAD_SECONDS)
    then.digest_is(zoo.model("good-v1"))


def _claim(story: Story) -> str:
    """A claim bound to a folder of one node."""
    node = next(n for n in story.cluster.nodes() if "control-plane" not in n)
    name = story.namespace
    on_node = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]
    story.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "10Mi"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "hostPath": {"path": f"/var/lib/penstock-e2e/{name}", "type": "DirectoryOrCreate"},
                "claimRef": {"namespace": story.namespace, "name": "models"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": on_node}},
            },
        }
    )
    story.afterwards(lambda: story.cluster.delete("PersistentVolume", "", name))
    story.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": story.namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": name,
                "resources": {"requests": {"storage": "10Mi"}},
            },
        }
    )
    return "models"


def _fill(story: Story, claim: str) -> None:
    """A pod copies a model from a ConfigMap into the volume, by the product's own fetch."""
    words = [
        "fetch",
        "--uri",
        f"configmap://good-v1/{FILE}",
        "--source-dir",
        "/mnt/source",
        "--dest",
        "/mnt/models/iris",
    ]
    story.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "fill", "namespace": story.namespace},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsUser": 0},
                "containers": [
                    {
                        "name": "fill",
                        "image": RUNTIME_IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "args": words,
                        "volumeMounts": [
                            {"name": "source", "mountPath": "/mnt/source"},
                            {"name": "models", "mountPath": "/mnt/models", "subPath": "models"},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "source", "configMap": {"name": "good-v1"}},
                    {"name": "models", "persistentVolumeClaim": {"claimName": claim}},
                ],
            },
        }
    )

    def problem() -> str:
        pod = story.cluster.get("Pod", story.namespace, "fill") or {}
        phase = pod.get("status", {}).get("phase")
        return "" if phase == "Succeeded" else f"the pod is {phase}: {pod.get('status', {}).get('containerStatuses')}"

    Expectation("the volume is filled", problem, tell=story.tell).within(60)
