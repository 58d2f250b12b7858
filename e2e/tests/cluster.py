"""The API server as the tests see it: plain JSON objects in and out, with whatever rights the kubeconfig has."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

Object: TypeAlias = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
USER = "e2e-user"
"""Field manager of what a test applies, as kubectl would be for a user."""

PATHS: Mapping[str, tuple[str, str]] = {
    "ModelDeployment": ("apis/penstock.dev/v1alpha1", "modeldeployments"),
    "RolloutAnalysis": ("apis/penstock.dev/v1alpha1", "rolloutanalyses"),
    "ClusterModelRuntime": ("apis/penstock.dev/v1alpha1", "clustermodelruntimes"),
    "HTTPRoute": ("apis/gateway.networking.k8s.io/v1", "httproutes"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "ReplicaSet": ("apis/apps/v1", "replicasets"),
    "ControllerRevision": ("apis/apps/v1", "controllerrevisions"),
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "Namespace": ("api/v1", "namespaces"),
    "Pod": ("api/v1", "pods"),
    "Service": ("api/v1", "services"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Secret": ("api/v1", "secrets"),
    "Event": ("api/v1", "events"),
    "PersistentVolume": ("api/v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
}


class Refused(Exception):  # noqa: N818 - the API server's no is an answer
    """The API server said no. `code` is the HTTP status, the text is its own message, as kubectl prints it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


@dataclass(frozen=True)
class Access:
    """How to reach the API server: also for clients of other libraries."""

    host: str
    ca: str | None
    certificate: tuple[str, str] | None
    headers: Mapping[str, str]

    def context(self) -> ssl.SSLContext:
        """TLS settings with our certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate:
            context.load_cert_chain(*self.certificate)
        return context


def access(kubeconfig: Path) -> Access:
    """What a kubeconfig's current context says."""
    found = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=found)  # type: ignore[no-untyped-call]
    token = found.get_api_key_with_prefix("authorization")
    return Access(
        host=found.host,
        ca=found.ssl_ca_cert,
        certificate=(found.cert_file, found.key_file) if found.cert_file and found.key_file else None,
        headers={"Authorization": token} if token else {},
    )


class Cluster:
    """Objects by kind, namespace and name. Every method raises Refused where the API server says no."""

    def __init__(self, kubeconfig: Path) -> None:
        """Connect with the kubeconfig's current context."""
        self.kubeconfig = kubeconfig
        self.access = access(kubeconfig)
        certificate, key = self.access.certificate or (None, None)
        self._pool = urllib3.PoolManager(
            maxsize=16,
            ca_certs=self.access.ca,
            cert_file=certificate,
            key_file=key,
            headers=dict(self.access.headers),
            retries=urllib3.Retry(connect=3, read=0, redirect=0, backoff_factor=0.2),
        )

    # --- objects -------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object; None where there is none."""
        try:
            return self.request("GET", f"{collection(kind, namespace)}/{name}")
        except Refused as refusal:
            if refusal.code == 404:
                return None
            raise

    def all(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """The objects of a kind, in one namespace or all."""
        query = {"labelSelector": selector} if selector else {}
        found = self.request("GET", collection(kind, namespace), query=query)
        return [{"kind": kind, **item} for item in found["items"]]

    def apply(self, manifest: Object, manager: str = USER) -> Object:
        """Server-side apply with strict validation, as `kubectl apply --server-side` does it."""
        path = (
            f"{collection(manifest['kind'], manifest['metadata'].get('namespace', ''))}/{manifest['metadata']['name']}"
        )
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        return self.request("PATCH", path, manifest, query=query, content_type=APPLY)

    def patch(self, kind: str, namespace: str, name: str, change: Any, subresource: str = "") -> Object:
        """Merge patch, or a JSON patch where the change is a list."""
        path = f"{collection(kind, namespace)}/{name}" + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, change, content_type=JSON_PATCH if isinstance(change, list) else MERGE)

    def delete(self, kind: str, namespace: str, name: str, *, grace_seconds: int | None = None) -> None:
        """Delete with its dependents in the background; no error where there is none."""
        query = {"propagationPolicy": "Background"}
        if grace_seconds is not None:
            query["gracePeriodSeconds"] = str(grace_seconds)
        try:
            self.request("DELETE", f"{collection(kind, namespace)}/{name}", query=query)
        except Refused as refusal:
            if refusal.code != 404:
                raise

    def nodes(self) -> list[str]:
        """Names of the nodes."""
        return [node["metadata"]["name"] for node in self.request("GET", "api/v1/nodes")["items"]]

    # --- other ways in -------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One exchange in JSON."""
        answer: Object = json.loads(self.raw(method, path, body, query=query, content_type=content_type) or b"{}")
        return answer

    def raw(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """One exchange; the body of the answer as it is."""
        answer = self._pool.request(
            method,
            f"{self.access.host}/{path}" + (f"?{urlencode(query)}" if query else ""),
            body=None if body is None else json.dumps(body).encode(),
            headers={**self.access.headers, "Content-Type": content_type, "Accept": "application/json, */*"},
            timeout=urllib3.Timeout(connect=5, read=60),
        )
        if answer.status >= 400:
            raise Refused(answer.status, _message(answer.data))
        return answer.data

    @contextmanager
    def watch(self, kind: str, namespace: str, version: str, seconds: int) -> Iterator[Iterator[Object]]:
        """The stream of changes after a resourceVersion: {"type", "object"}, until the time is over."""
        query = {
            "watch": "1",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "allowWatchBookmarks": "true",
        }
        stream = self._pool.request(
            "GET",
            f"{self.access.host}/{collection(kind, namespace)}?{urlencode(query)}",
            headers=dict(self.access.headers),
            preload_content=False,
            timeout=urllib3.Timeout(connect=5, read=seconds + 15),
        )
        try:
            if stream.status >= 400:
                raise Refused(stream.status, _message(stream.read()))
            yield (json.loads(line) for line in _lines(stream))
        finally:
            stream.close()


def collection(kind: str, namespace: str = "") -> str:
    """The path of a kind's objects, without a leading slash."""
    prefix, plural = PATHS[kind]
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def _lines(stream: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in stream.stream(amt=None):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:500].decode(errors="replace")
