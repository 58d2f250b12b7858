"""What a revision is: spec + runtime, rendered once into a frozen record that all later applies come from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.core import names, templates
from penstock.core.objects import (
    CONTROLLER_REVISION,
    LABEL_COMPONENT,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    LABEL_REVISION,
    Object,
)

MODEL_PATH = "/models/model"
CONFIG_DIR = "/etc/penstock/revision"
CREDENTIALS_DIR = "/etc/penstock/credentials"
FEEDBACK_KEY_DIR = "/etc/penstock/feedback-key"
SOURCE_DIR = "/mnt/source"
FETCH_CONTAINER = "fetch"
RUNTIME_USER = 65532
DEFAULT_FORMAT = "onnx"

_URI = re.compile(r"^(?P<scheme>[a-z0-9+.-]+)://(?P<rest>.+)$")
_HOST = ("hostNetwork", "hostPID", "hostIPC")
_HARDENED: Mapping[str, Any] = {
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
    "runAsNonRoot": True,
}


class Unrenderable(ValueError):  # noqa: N818 - a state of the input, told to the user
    """The spec cannot become pods. `reason` is CamelCase for a condition, the text is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Owner:
    """The ModelDeployment that owns what is rendered."""

    name: str
    namespace: str
    uid: str

    def reference(self) -> Object:
        """Its ownerReference, without blockOwnerDeletion: that would need rights on finalizers."""
        return {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "ModelDeployment",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }


def choose_runtime(spec: Mapping[str, Any], runtimes: Sequence[Object]) -> Object:
    """The ClusterModelRuntime a spec names, or the one that selects itself for the model's format."""
    wanted = spec.get("runtime")
    format_ = spec["model"].get("format") or DEFAULT_FORMAT
    known = ", ".join(sorted(r["metadata"]["name"] for r in runtimes)) or "none is installed"
    if wanted:
        for runtime in runtimes:
            if runtime["metadata"]["name"] == wanted:
                return runtime
        raise Unrenderable(
            "NoSupportingRuntime",
            f"spec.runtime: there is no ClusterModelRuntime {wanted!r} (there are: {known})",
        )
    fitting = [r for r in runtimes if _selects(r, format_)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = ", ".join(sorted(r["metadata"]["name"] for r in fitting))
        raise Unrenderable(
            "NoSupportingRuntime",
            f"several runtimes take format {format_!r}: name one in spec.runtime ({choices})",
        )
    raise Unrenderable(
        "NoSupportingRuntime",
        f"no ClusterModelRuntime selects itself for format {format_!r} (there are: {known})",
    )


def _selects(runtime: Object, format_: str) -> bool:
    return any(f["name"] == format_ and f.get("autoSelect", False) for f in runtime["spec"].get("formats", ()))


def freeze(owner: Owner, spec: Mapping[str, Any], runtime: Object, agent_image: str, revision: str) -> Object:
    """The immutable data of a revision's ControllerRevision. Raises Unrenderable."""
    ports = {name: int(port) for name, port in runtime["spec"]["ports"].items() if port}
    layout = runtime["spec"].get("modelLayout", "flat")
    values = {
        "model": {
            "name": owner.name,
            "namespace": owner.namespace,
            "revision": revision,
            "path": MODEL_PATH,
            "format": spec["model"].get("format") or DEFAULT_FORMAT,
        },
        "ports": ports,
        "images": {"runtime": agent_image},
    }
    where = f"ClusterModelRuntime {runtime['metadata']['name']}: spec.template"
    try:
        template = templates.render(runtime["spec"]["template"], values, where)
    except templates.TemplateError as error:
        raise Unrenderable("InvalidRuntime", str(error)) from error
    return {
        "specHash": names.spec_hash(spec),
        "model": spec["model"],
        "runtime": {
            "name": runtime["metadata"]["name"],
            "generation": runtime["metadata"].get("generation", 0),
        },
        "agentImage": agent_image,
        "ports": ports,
        "podTemplate": _pod_template(owner, spec, template, _Fetch(agent_image, layout, revision)),
    }


@dataclass(frozen=True, slots=True)
class _Fetch:
    image: str
    layout: str
    revision: str


def _pod_template(owner: Owner, spec: Mapping[str, Any], template: Object, fetch: _Fetch) -> Object:
    pod = dict(template["spec"])
    if shared := [field for field in _HOST if pod.get(field)]:
        raise Unrenderable(
            "InvalidRuntime", f"spec.template.spec of the runtime asks for {shared[0]}, which no model gets"
        )
    containers = [dict(c) for c in pod.get("containers", ())]
    if not containers:
        raise Unrenderable("InvalidRuntime", "spec.template.spec.containers of the runtime is empty")
    containers[0] = _server(owner, spec, containers[0], fetch.revision)
    overrides = spec.get("template") or {}
    source = _source(spec["model"]["uri"])
    pod["containers"] = [_harden(c) for c in containers]
    pod["initContainers"] = [
        _harden(c) for c in (_fetch_container(spec, fetch, source), *pod.get("initContainers", ()))
    ]
    pod["volumes"] = [*pod.get("volumes", ()), *_volumes(owner, spec, fetch.revision, source)]
    pod["nodeSelector"] = {**pod.get("nodeSelector", {}), **overrides.get("nodeSelector", {})}
    pod["tolerations"] = [*pod.get("tolerations", ()), *overrides.get("tolerations", ())]
    pod["imagePullSecrets"] = [*pod.get("imagePullSecrets", ()), *overrides.get("imagePullSecrets", ())]
    pod["automountServiceAccountToken"] = False
    pod["enableServiceLinks"] = False
    pod["securityContext"] = {
        "runAsUser": RUNTIME_USER,
        "runAsGroup": RUNTIME_USER,
        "fsGroup": RUNTIME_USER,
        **pod.get("securityContext", {}),
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    metadata = template.get("metadata") or {}
    return {
        "metadata": {
            "labels": {**metadata.get("labels", {}), **pod_labels(owner.name, fetch.revision)},
            "annotations": dict(metadata.get("annotations", {})),
        },
        "spec": {key: value for key, value in pod.items() if value not in ({}, [])},
    }


def _server(owner: Owner, spec: Mapping[str, Any], container: Object, revision: str) -> Object:
    given = (spec.get("template") or {}).get("env", [])
    own = [
        {"name": "PENSTOCK_NAMESPACE", "value": owner.namespace},
        {"name": "PENSTOCK_MODEL", "value": owner.name},
        {"name": "PENSTOCK_REVISION", "value": revision},
    ]
    if spec.get("serving"):
        own.append({"name": "PENSTOCK_SERVING", "value": json.dumps(spec["serving"], sort_keys=True)})
    taken = {e["name"] for e in (*own, *given)}
    container["env"] = [*(e for e in container.get("env", ()) if e["name"] not in taken), *given, *own]
    container["volumeMounts"] = [
        *container.get("volumeMounts", ()),
        {"name": "model", "mountPath": "/models", "readOnly": True},
        {"name": "revision", "mountPath": CONFIG_DIR, "readOnly": True},
        {"name": "feedback-key", "mountPath": FEEDBACK_KEY_DIR, "readOnly": True},
    ]
    if resources := _resources(container.get("resources") or {}, spec.get("resources") or {}):
        container["resources"] = resources
    return container


def _resources(default: Mapping[str, Any], given: Mapping[str, Any]) -> Object:
    """The user's, resource by resource, and the runtime's for the others: so a limit alone is the request too."""
    limits, requests = given.get("limits") or {}, given.get("requests") or {}
    named = {*limits, *requests}
    merged = {
        "limits": {**{k: v for k, v in (default.get("limits") or {}).items() if k not in named}, **limits},
        "requests": {**{k: v for k, v in (default.get("requests") or {}).items() if k not in named}, **requests},
    }
    return {key: value for key, value in {**default, **merged}.items() if value}


def _harden(container: Object) -> Object:
    """Enforced after merging, so that no runtime can loosen it."""
    return {**container, "securityContext": {**container.get("securityContext", {}), **_HARDENED}}


def _fetch_container(spec: Mapping[str, Any], fetch: _Fetch, source: Object | None) -> Object:
    model = spec["model"]
    args = [
        "fetch",
        "--uri",
        model["uri"],
        "--dest",
        MODEL_PATH,
        "--lock-dir",
        CONFIG_DIR,
        "--layout",
        fetch.layout,
    ]
    mounts: list[Object] = [
        {"name": "model", "mountPath": "/models"},
        {"name": "revision", "mountPath": CONFIG_DIR, "readOnly": True},
    ]
    if model.get("digest"):
        args += ["--digest", model["digest"]]
    if _credentials(spec):
        args += ["--credentials-dir", CREDENTIALS_DIR]
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_DIR, "readOnly": True})
    if source:
        args += ["--source-dir", SOURCE_DIR]
        mounts.append({"name": "source", "mountPath": SOURCE_DIR, "readOnly": True})
    return {
        "name": FETCH_CONTAINER,
        "image": fetch.image,
        "args": args,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "File",
    }


def _volumes(owner: Owner, spec: Mapping[str, Any], revision: str, source: Object | None) -> list[Object]:
    volumes: list[Object] = [
        {"name": "model", "emptyDir": {}},
        {"name": "revision", "configMap": {"name": names.of_revision(owner.name, revision)}},
        {"name": "feedback-key", "secret": {"secretName": names.feedback_key(owner.name)}},
    ]
    if secret := _credentials(spec):
        volumes.append({"name": "credentials", "secret": {"secretName": secret}})
    if source:
        volumes.append({"name": "source", **source})
    return volumes


def secrets_named(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, name) of every Secret that a spec asks for."""
    template = spec.get("template") or {}
    named = [("spec.model.credentials.secretRef", _credentials(spec))]
    for variable in template.get("env") or ():
        key = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
        named.append((f"spec.template.env[{variable['name']}].valueFrom.secretKeyRef", key.get("name")))
    named += [
        ("spec.template.imagePullSecrets", secret.get("name")) for secret in template.get("imagePullSecrets") or ()
    ]
    return [(field, name) for field, name in named if name]


def _credentials(spec: Mapping[str, Any]) -> str | None:
    return ((spec["model"].get("credentials") or {}).get("secretRef") or {}).get("name")


def _source(uri: str) -> Object | None:
    """The volume that holds a configmap:// or pvc:// model; None for sources fetched over the network."""
    match = _URI.match(uri)
    scheme, rest = (match["scheme"], match["rest"]) if match else ("", "")
    name, _, key = rest.partition("/")
    match scheme:
        case "configmap" if name and key:
            return {"configMap": {"name": name, "items": [{"key": key, "path": key}]}}
        case "configmap":
            raise Unrenderable("InvalidSource", f"spec.model.uri {uri!r}: expected configmap://NAME/KEY")
        case "pvc" if name:
            return {"persistentVolumeClaim": {"claimName": name, "readOnly": True}}
        case _:
            return None


def pod_labels(model: str, revision: str) -> dict[str, str]:
    """The labels of a model pod. Never a role: roles change, and pods must not restart."""
    return {
        LABEL_MODEL: model,
        LABEL_REVISION: revision,
        LABEL_COMPONENT: "server",
        LABEL_MANAGED_BY: "penstock",
    }


def metadata(owner: Owner, name: str, component: str, revision: str | None = None) -> Object:
    """Metadata of an object that belongs to a ModelDeployment; only these labels, none copied from the user."""
    labels = {LABEL_MODEL: owner.name, LABEL_COMPONENT: component, LABEL_MANAGED_BY: "penstock"}
    if revision:
        labels[LABEL_REVISION] = revision
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels,
        "ownerReferences": [owner.reference()],
    }


def controller_revision(owner: Owner, revision: str, number: int, data: Object) -> Object:
    """The frozen record as an object. Its data is immutable: the API server enforces that."""
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.kind,
        "metadata": metadata(owner, names.of_revision(owner.name, revision), "revision", revision),
        "revision": number,
        "data": data,
    }
