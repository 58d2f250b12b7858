"""The `Cluster` port on a real API server, with raw JSON: fields newer than this code survive a round trip.

How creation is fenced: an apply that carries a resourceVersion is refused with 409 where an object exists at
another version, and creates where none exists. `NEVER` is a version that no object can have. So one request
creates by server-side apply, or is refused, and our fields are owned by an Apply from the start: an object
made by POST would belong to an Update of the same manager, and fields left out of later applies would stay.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from penstock.core.objects import FIELD_MANAGER, Fence, Kind, Object, Ref, ref_of
from penstock.ports import ClusterError, Conflict, Invalid

from .transport import APPLY_PATCH, MERGE_PATCH, Api, Call, Gone, NotFound, Response, Unreachable

NEVER = "1"
"""etcd's revision before the first write: no object ever has it."""

PAGE = 500
_LIST_TRIES = 3

Objects: TypeAlias = list[Object]


async def connect(context: str | None = None) -> ApiClient:
    """A client for the pod's service account, or outside of a pod for the kubeconfig.

    The kubeconfig is $KUBECONFIG or the user's. ClusterError says what is missing.
    """
    configuration = Configuration()
    kubeconfig = os.environ.get("KUBECONFIG", "")
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and not kubeconfig:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig or None,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
    except (ConfigException, OSError) as exc:
        where = kubeconfig or "~/.kube/config"
        raise ClusterError(
            f"no way to an API server: {exc} (not in a pod; kubeconfig: {where}). Set KUBECONFIG."
        ) from exc
    # Retries are ours: those of the client know neither Retry-After nor patches.
    configuration.retries = None
    client = ApiClient(configuration)
    client.user_agent = FIELD_MANAGER
    return client


class ClientSend:
    """`Send` through a kubernetes client: its TLS, its credentials and their renewal; nothing else of it."""

    def __init__(self, client: ApiClient, *, connect: float = 5.0, total: float = 20.0) -> None:
        self._client = client
        self._timeout = aiohttp.ClientTimeout(total=total, connect=connect, sock_connect=connect)
        self._total = total

    async def __call__(self, method: str, path: str, headers: dict[str, str], body: Any) -> Response:
        """See `Send`."""
        client = self._client
        headers = {**client.default_headers, **headers}
        try:
            await client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = await client.call_api(
                method,
                client.configuration.host.rstrip("/") + path,
                header_params=headers,
                body=body,
                _request_timeout=self._timeout,
            )
            return Response(answer.status, answer.headers, await answer.read())  # type: ignore[no-untyped-call]
        except TimeoutError as exc:
            raise Unreachable(f"no answer within {self._total:g} s") from exc
        except (aiohttp.ClientError, OSError, ConfigException) as exc:
            raise Unreachable(f"no connection to the API server: {exc}") from exc


class KubeCluster:
    """`penstock.ports.Cluster` on an API server."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def get(self, ref: Ref) -> Object | None:
        """See `Cluster.get`."""
        try:
            return await self._api.request(Call("get", ref.kind, ref.namespace, ref.name))
        except NotFound:
            return None

    async def serves(self, kind: Kind, namespace: str = "") -> bool:
        """Whether the type is installed. Invalid where we may not list it (in this namespace; empty: in all)."""
        try:
            await self._api.request(Call("list", kind, namespace, query=(("limit", "1"),)))
        except NotFound:
            return False
        return True

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Objects:
        """See `Cluster.list`."""
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        for attempt in range(1, _LIST_TRIES + 1):
            try:
                return await self._pages(kind, namespace, selector)
            except NotFound:
                return []
            except Gone:
                # A continue token has become too old: begin again.
                if attempt == _LIST_TRIES:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _pages(self, kind: Kind, namespace: str, selector: str) -> Objects:
        items: Objects = []
        token = ""
        while True:
            query = (("limit", str(PAGE)), ("labelSelector", selector), ("continue", token))
            call = Call("list", kind, namespace, query=tuple(pair for pair in query if pair[1]))
            page = await self._api.request(call)
            # Items of a list lack what the list itself says once.
            items += ({"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page["items"])
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return items

    async def create(self, manifest: Object) -> Object:
        """See `Cluster.create`. Done by a fenced apply, so that later applies own its fields."""
        return await self._apply(manifest, {"resourceVersion": NEVER})

    async def apply(self, manifest: Object, fence: Fence) -> Object:
        """See `Cluster.apply`."""
        if fence.uid is None or fence.resource_version is None:
            return await self.create(manifest)
        return await self._apply(manifest, {"uid": fence.uid, "resourceVersion": fence.resource_version})

    async def _apply(self, manifest: Object, fence: Mapping[str, str]) -> Object:
        ref = ref_of(manifest)
        dropped = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")
        meta = {k: v for k, v in manifest["metadata"].items() if k not in dropped}
        body = {**manifest, "metadata": {**meta, **fence}}
        query = (("fieldManager", FIELD_MANAGER), ("force", "true"), ("fieldValidation", "Strict"))
        call = Call("patch", ref.kind, ref.namespace, ref.name, "", query, body, APPLY_PATCH)
        return await self._write(call)

    async def replace_status(self, obj: Object) -> Object:
        """See `Cluster.replace_status`."""
        ref = ref_of(obj)
        if not obj["metadata"].get("resourceVersion"):
            raise Invalid(f"{ref}: a status is only written to an object that was read, with its resourceVersion")
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._write(Call("update", ref.kind, ref.namespace, ref.name, "status", query, obj))

    async def annotate(self, ref: Ref, annotations: Mapping[str, str], fence: Fence) -> Object:
        """See `Cluster.annotate`."""
        if fence.resource_version is None:
            raise Conflict(f"{ref}: an object that was absent cannot be annotated")
        meta = {"uid": fence.uid, "resourceVersion": fence.resource_version, "annotations": dict(annotations)}
        body = {"metadata": {name: value for name, value in meta.items() if value is not None}}
        query = (("fieldManager", FIELD_MANAGER),)
        call = Call("patch", ref.kind, ref.namespace, ref.name, "", query, body, MERGE_PATCH)
        return await self._write(call)

    async def delete(self, ref: Ref, fence: Fence) -> None:
        """See `Cluster.delete`."""
        fields = {"uid": fence.uid, "resourceVersion": fence.resource_version or NEVER}
        preconditions = {name: value for name, value in fields.items() if value is not None}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        }
        try:
            await self._api.request(Call("delete", ref.kind, ref.namespace, ref.name, body=body))
        except NotFound:
            return

    async def _write(self, call: Call) -> Object:
        try:
            return await self._api.request(call)
        except NotFound as exc:
            if call.content_type == APPLY_PATCH:
                # An apply creates what is missing, so the type or the namespace is.
                raise Invalid(f"{exc} (is the type {call.kind.plural}.{call.kind.group} installed?)") from exc
            raise Conflict(str(exc)) from exc


async def close(client: ApiClient) -> None:
    """Close the client's connections and let their transports end."""
    await client.close()  # type: ignore[no-untyped-call]
    await asyncio.sleep(0)
