"""The other ports of the operator, as fakes: samples, model metadata, events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.core.gates.samples import Series
from penstock.core.objects import Object
from penstock.ports import MetricsUnavailable, PodTarget, ProbeFailed, SampleQuery
from tests.fakes.copying import copied


class FakeMetrics:
    """`Metrics`: answers with the series it was fed, cut to what was asked for."""

    def __init__(self, series: Iterable[Series] = ()) -> None:
        self.series: list[Series] = list(series)
        self.down: str | None = None
        """While set, the source cannot answer and this is why."""
        self.queries: list[SampleQuery] = []

    async def samples(self, query: SampleQuery) -> tuple[Series, ...]:
        """See `Metrics.samples`. A subclass or a test may replace `series` between calls."""
        self.queries.append(query)
        if self.down is not None:
            raise MetricsUnavailable(self.down)
        return tuple(self.series)


class FakeInspector:
    """`Inspector`: metadata by revision."""

    def __init__(self) -> None:
        self.by_revision: dict[str, Mapping[str, Any]] = {}
        self.default: Mapping[str, Any] | None = {
            "name": "m",
            "platform": "onnx",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
        }
        """What any other revision answers; None for ProbeFailed."""
        self.down: str | None = None

    async def metadata(self, pod: PodTarget, model: str) -> Mapping[str, Any]:
        """See `Inspector.metadata`."""
        answer = self.by_revision.get(pod.revision, self.default)
        if self.down is not None or answer is None:
            raise ProbeFailed(self.down or f"pod {pod.name} did not answer")
        return {**copied(dict(answer)), "name": model}


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One call of `Recorder.record`."""

    regarding: str
    kind: str
    reason: str
    message: str


class FakeRecorder:
    """`Recorder`: keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []

    async def record(self, regarding: Object, kind: str, reason: str, message: str) -> None:
        """See `Recorder.record`."""
        meta = regarding["metadata"]
        self.events.append(RecordedEvent(f"{meta.get('namespace', '')}/{meta['name']}", kind, reason, message))

    def reasons(self) -> list[str]:
        """The reasons in order."""
        return [event.reason for event in self.events]
