"""Who routes the requests, and which requests."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from penstock.api.base import ATOMIC, ApiModel, Label, ObjectName, rules


class Router(StrEnum):
    """What splits the traffic between revisions."""

    REPLICAS = "Replicas"
    GATEWAY_API = "GatewayAPI"


class ParentRef(ApiModel):
    """A Gateway that the route attaches to."""

    name: ObjectName
    """Name of the Gateway."""
    namespace: Label | None = None
    """Its namespace; absent: the ModelDeployment's own. The Gateway must admit routes of this namespace."""
    section_name: ObjectName | None = None
    """One listener of the Gateway; absent: all that fit."""


class Match(ApiModel):
    """Requests that belong to this model."""

    path_prefix: Annotated[
        str,
        Field(
            max_length=1024,
            json_schema_extra=rules(
                ("self.startsWith('/') && !self.contains('//')", "must be a path such as /v2/models/fraud")
            ),
        ),
    ]
    """Beginning of the path, such as `/v2/models/fraud`, by whole path elements."""


Hostname = Annotated[
    str,
    Field(
        max_length=253,
        json_schema_extra=rules(
            (
                "self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
                "must be a host name such as fraud.example.com, without scheme, port or path",
            )
        ),
    ),
]

# The API server checks the default `{}` before it applies those of the fields: router may be absent.
_GATEWAY_ONLY = rules(
    (
        ("!has(self.router) || self.router != 'GatewayAPI' || (has(self.parentRefs) && self.parentRefs.size() > 0)"),
        "router GatewayAPI needs parentRefs: the Gateway that the route attaches to",
    ),
    (
        (
            "(has(self.router) && self.router == 'GatewayAPI') || "
            "!(has(self.parentRefs) || has(self.hostnames) || has(self.matches))"
        ),
        "parentRefs, hostnames and matches need router: GatewayAPI",
    ),
)


class Traffic(ApiModel):
    """How requests reach the model and are split between revisions."""

    model_config = ConfigDict(json_schema_extra=_GATEWAY_ONLY)

    router: Router = Router.REPLICAS
    """Replicas: the share of the pods, with no extra component. GatewayAPI: exact, by an HTTPRoute."""
    parent_refs: Annotated[tuple[ParentRef, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    """Gateways that the route attaches to."""
    hostnames: Annotated[
        tuple[Hostname, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Host names of the route; absent: those of the Gateway's listeners."""
    matches: Annotated[tuple[Match, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Requests of the route; absent: those below `/v2/models/<name>`."""
