"""The objects of a revision and of a model, as manifests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from penstock.core import names
from penstock.core.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    HTTP_ROUTE,
    SECRET,
    SERVICE,
    Object,
    Ref,
)
from penstock.core.render import Owner, metadata
from penstock.core.routing import Split, selector, service
from penstock.core.world import Revision

REVISION_KINDS = frozenset({DEPLOYMENT.kind, SERVICE.kind, CONFIG_MAP.kind})
"""Kinds that exist once per revision and go when it is in no role; its ControllerRevision stays."""


def of_revision(
    owner: Owner, revision: Revision, replicas: int, feedback: Mapping[str, Any] | None, cohort: str | None
) -> Iterable[Object]:
    """ConfigMap, Service and Deployment of one revision, from its frozen record."""
    name = names.of_revision(owner.name, revision.name)
    data = {"feedback": json.dumps(feedback or {}, sort_keys=True)}
    if revision.digest:
        data["digest"] = revision.digest
    if cohort:
        data["cohort"] = cohort
    yield {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": metadata(owner, name, "config", revision.name),
        "data": data,
    }
    chosen = selector(owner.name, revision.name)
    yield service(owner, name, "server", chosen, revision.data["ports"])
    yield {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": metadata(owner, name, "server", revision.name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": chosen},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "revisionHistoryLimit": 0,
            "template": revision.data["podTemplate"],
        },
    }


def refs_of_revision(owner: Owner, revision: str) -> list[Ref]:
    """The addresses that `of_revision` uses."""
    name = names.of_revision(owner.name, revision)
    return [Ref(kind, owner.namespace, name) for kind in (CONFIG_MAP, SERVICE, DEPLOYMENT)]


def aliases(owner: Owner, split: Split, ports: Mapping[str, int]) -> Iterable[Object]:
    """Services for people: `m-stable`, and `m-canary` while there is one."""
    if split.stable:
        yield service(owner, names.stable_alias(owner.name), "alias", selector(owner.name, split.stable), ports)
    if split.canary and split.stable:
        yield service(owner, names.canary_alias(owner.name), "alias", selector(owner.name, split.canary), ports)


def route_refs(owner: Owner) -> list[Ref]:
    """Addresses of all objects that requests come by; which of them exist depends on router and roles."""
    return [
        Ref(SERVICE, owner.namespace, owner.name),
        Ref(HTTP_ROUTE, owner.namespace, owner.name),
        Ref(SERVICE, owner.namespace, names.canary_alias(owner.name)),
        Ref(SERVICE, owner.namespace, names.stable_alias(owner.name)),
    ]


def feedback_key(owner: Owner, key: str) -> Object:
    """The Secret that signs prediction ids. `key` is base64 of 32 random bytes."""
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": metadata(owner, names.feedback_key(owner.name), "feedback-key"),
        "type": "Opaque",
        "data": {"current": key, "previous": key},
    }
