"""What users of the stories apply: ModelDeployments that decide within seconds, and their models as ConfigMaps."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from e2e.tests.cluster import Object

MODEL = "iris"
FILE = "model.onnx"

QUICK: Mapping[str, Any] = {
    "block": "2s",
    "soak": "0s",
    "warmUp": {"requests": 5, "period": "1s"},
    # A suite makes dozens of rollouts: at the default of 5 % every other run would see a false rollback.
    "alpha": 0.001,
}
STEPS = ({"weight": 20}, {"weight": 50})

ACCURACY: Mapping[str, Any] = {"name": "accuracy", "compare": {"signal": "accuracy", "maxDrop": 0.15}}
ERRORS: Mapping[str, Any] = {"name": "errors", "compare": {"signal": "errors", "maxIncrease": 0.05}}
LATENCY: Mapping[str, Any] = {"name": "latency", "compare": {"signal": "latency", "maxRatio": 2.5}}
"""Wide, since the pods of both revisions share two cores with everything else."""


@dataclass(frozen=True)
class Gateway:
    """Where routes attach, and the loopback port under which requests reach it."""

    name: str
    namespace: str
    port: int


def hostname(namespace: str) -> str:
    """The host name of a story's model: stories side by side must not share a route."""
    return f"{namespace}.example.com"


def source(model: str) -> str:
    """The uri of a model that lies in a ConfigMap of the same namespace."""
    return f"configmap://{model}/{FILE}"


def config_map(namespace: str, model: str, content: bytes) -> Object:
    """A model's file as a ConfigMap named after it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": model, "namespace": namespace},
        "binaryData": {FILE: base64.b64encode(content).decode()},
    }


def through(gateway: Gateway, namespace: str) -> Object:
    """`spec.traffic` for a gateway."""
    return {
        "router": "GatewayAPI",
        "parentRefs": [{"name": gateway.name, "namespace": gateway.namespace}],
        "hostnames": [hostname(namespace)],
    }


def quick_spec(model: str, traffic: Object) -> Object:
    """A spec with two steps, gates that decide on dozens of requests, and no waiting."""
    return {
        "model": {"uri": source(model)},
        "replicas": 2,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "serving": {"threads": 1},
        "rollout": {
            "steps": [dict(step) for step in STEPS],
            "analysis": dict(QUICK),
            "gates": [dict(ACCURACY), dict(ERRORS)],
            "scaleDownDelay": "5s",
            "progressDeadline": "3m",
        },
        "traffic": traffic,
    }


def model_deployment(namespace: str, spec: Object, name: str = MODEL) -> Object:
    """A ModelDeployment."""
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def changed(base: Object, change: Mapping[str, Any]) -> Object:
    """`base` with `change` laid over it, object by object; None takes a field out, lists are replaced."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), dict):
            result[key] = changed(result[key], value)
        else:
            result[key] = value
    return result
