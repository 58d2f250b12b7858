"""What makes a model a Kubernetes resource: names, columns, subresources; and an object's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from penstock.api.base import ApiModel, Timestamp

GROUP = "penstock.dev"
VERSION = "v1alpha1"
CATEGORY = "penstock"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; those of priority 1 appear with `-o wide` only."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date"] = "string"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """How one kind is presented by the API server."""

    kind: str
    plural: str
    singular: str
    short_name: str
    columns: tuple[Column, ...]
    name_rules: Mapping[str, Any] | None = None
    """Schema extension for the object's own name."""
    namespaced: bool = True
    has_status: bool = True
    scale: Mapping[str, str] | None = None
    """Paths of the scale subresource: specReplicasPath, statusReplicasPath, labelSelectorPath."""

    @property
    def name(self) -> str:
        """The CRD's own name."""
        return f"{self.plural}.{GROUP}"


AGE = Column("Age", ".metadata.creationTimestamp", "Time since the object was made", "date")


class ObjectMeta(ApiModel):
    """The part of an object's metadata that the operator reads."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str | None = None
    generation: int = 0
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None


class ResourceModel(ApiModel):
    """A whole object: `metadata` beside the spec and status that each kind adds."""

    RESOURCE: ClassVar[Resource]

    metadata: ObjectMeta = ObjectMeta()
