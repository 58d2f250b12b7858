"""What the operator needs of the world, as small protocols; `adapters` holds the real ones.

Every method may raise one of the errors below and nothing else that a caller should handle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.core.gates.samples import Series
from penstock.core.objects import Fence, Kind, Object, Ref


class ClusterError(Exception):
    """The API server could not be asked or refused; the message is for people and holds no secret."""


class Conflict(ClusterError):  # noqa: N818 - the field's own word
    """The object changed, or exists already, since it was read: stop and look again."""


class Invalid(ClusterError):  # noqa: N818
    """The API server refuses the object as it is (400, 403 or 422): trying again will not help."""


class MetricsUnavailable(Exception):  # noqa: N818
    """No samples could be had; the message says why (refused, timed out, bad answer...)."""


class ProbeFailed(Exception):  # noqa: N818
    """A model pod did not answer its metadata request."""


class Cluster(Protocol):
    """The API server. Reads are live (never from a cache); writes carry our field manager."""

    async def get(self, ref: Ref) -> Object | None:
        """The object, or None where there is none (also where its type is not installed)."""

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> list[Object]:
        """All objects of a type with these labels; `namespace` empty for all. [] if the type is not installed."""

    async def create(self, manifest: Object) -> Object:
        """POST. Conflict if it exists."""

    async def apply(self, manifest: Object, fence: Fence) -> Object:
        """Server-side apply (forced). An absent fence creates, and is a Conflict if the object exists by now;
        else uid and resourceVersion must still be those of the fence, or it is a Conflict."""

    async def replace_status(self, obj: Object) -> Object:
        """PUT of the status subresource with the object's own resourceVersion. Conflict if that is old."""

    async def annotate(self, ref: Ref, annotations: Mapping[str, str], fence: Fence) -> Object:
        """Merge these annotations, fenced."""

    async def delete(self, ref: Ref, fence: Fence) -> None:
        """Delete in the background, fenced by uid and resourceVersion. Absent already is fine."""


@dataclass(frozen=True, slots=True)
class PodTarget:
    """A model pod that can be scraped or asked directly."""

    name: str
    ip: str
    revision: str
    ports: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SampleQuery:
    """Which raw counters are wanted: those of one model's pods, newer than `since`."""

    namespace: str
    model: str
    since: float
    """Unix seconds, in the source's own sample time; at most the lookback the adapter allows is fetched."""
    pods: Sequence[PodTarget]
    """The pods that exist now, for adapters that scrape them directly."""
    names: Sequence[str]
    """Metric names."""
    bucket_bounds: Sequence[str] | None = None
    """For histogram buckets: only these `le` values; None for all."""


class Metrics(Protocol):
    """A source of raw counter samples."""

    async def samples(self, query: SampleQuery) -> tuple[Series, ...]:
        """Series with their points in time order. MetricsUnavailable when the source cannot answer.

        An empty answer means: the source answered, and knows no such series."""


class Inspector(Protocol):
    """Asks a model pod about its model."""

    async def metadata(self, pod: PodTarget, model: str) -> Mapping[str, Any]:
        """The Open Inference Protocol's model metadata (names, types, shapes). ProbeFailed otherwise."""


class Recorder(Protocol):
    """Tells people about transitions: Kubernetes Events."""

    async def record(self, regarding: Object, kind: str, reason: str, message: str) -> None:
        """`kind` is Normal or Warning. Never raises: an event lost is no reason to stop a rollout."""


class Clock(Protocol):
    """Wall clock."""

    def now(self) -> float:
        """Unix seconds."""
