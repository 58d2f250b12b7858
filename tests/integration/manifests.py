"""Where the kinds live on the API server, their smallest good manifests, and how a test bends them."""

from __future__ import annotations

import copy

from tests.integration.rest import Json

API = "/apis/penstock.dev/v1alpha1"

_SMALLEST: dict[str, Json] = {
    "ModelDeployment": {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "fraud"},
        "spec": {"model": {"uri": "s3://models/fraud/7"}},
    },
    "ClusterModelRuntime": {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ClusterModelRuntime",
        "metadata": {"name": "triton"},
        "spec": {
            "formats": [{"name": "onnx"}],
            "ports": {"http": 8000},
            "template": {"spec": {"containers": [{"name": "server", "image": "triton:1"}]}},
        },
    },
    "RolloutAnalysis": {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "RolloutAnalysis",
        "metadata": {"name": "fraud-b8d4f7c2xk-1"},
        "spec": {"modelDeployment": "fraud", "rollout": "b8d4f7c2xk-h2k4m", "canary": "b8d4f7c2xk"},
    },
}


def smallest(kind: str = "ModelDeployment") -> Json:
    """The smallest good manifest of a kind."""
    return copy.deepcopy(_SMALLEST[kind])


def collection(kind: str, namespace: str) -> str:
    """The path of a kind's objects."""
    match kind:
        case "ClusterModelRuntime":
            return f"{API}/clustermodelruntimes"
        case "RolloutAnalysis":
            return f"{API}/namespaces/{namespace}/rolloutanalyses"
        case _:
            return f"{API}/namespaces/{namespace}/modeldeployments"


def merged(base: Json, change: Json) -> Json:
    """`base` with `change` laid over it, object by object; None takes a field out."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
