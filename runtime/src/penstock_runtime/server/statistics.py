"""The statistics extension: how often, and how long in all, since the process began.

Sums of the same things that the metrics have as histograms, for tools that speak the protocol only. Like the
metrics they never count probes, metadata and warm-up, and all calls come from the event loop.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from penstock_runtime.engine.job import Ran, Together

# Sizes of batches beyond these are counted together and not listed, so that no client can make the answer grow.
MAX_BATCH_SIZES = 128
_OTHERS = -1
_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


class Work(NamedTuple):
    """Seconds of what is done around a run."""

    decoding: float
    encoding: float


class Statistics:
    """The numbers of one version of a model."""

    __slots__ = ("_answered", "_batches", "_fail", "_last", "_success")

    def __init__(self) -> None:
        """Start at 0."""
        self._fail = [0, 0.0]
        self._success = [0, 0.0]
        self._last = 0.0
        # Requests, seconds of each stage, rows in all.
        self._answered = [0.0] * 6
        # Rows of a run -> runs; seconds of its requests' decoding, of the runs, of its requests' encoding.
        self._batches: dict[int, list[float]] = {}

    def ended(self, seconds: float, success: bool) -> None:
        """Count a request by its whole time; `success`: whether it was answered with 200."""
        ended = self._success if success else self._fail
        ended[0] += 1
        ended[1] += seconds

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run of the model, which may be one of several requests."""
        batch = self._batches.get(rows) or self._batch(rows)
        batch[0] += 1
        batch[2] += seconds

    def answered_together(self, count: int, seconds: float, queued: float, together: Together, work: Work) -> None:
        """Count `count` requests of one row each that were run together and succeeded, by the seconds of all."""
        self._last = time.time()
        self._success[0] += count
        self._success[1] += seconds
        total = self._answered
        total[0] += count
        total[1] += queued
        total[2] += work.decoding
        total[3] += together.seconds * count
        total[4] += work.encoding
        total[5] += count
        batch = self._batches.get(together.rows) or self._batch(together.rows)
        batch[1] += work.decoding
        batch[3] += work.encoding

    def answered(self, rows: int, ran: Ran, decoding: float, encoding: float) -> None:
        """Count one request of `rows` rows, by the seconds of its stages."""
        self._last = time.time()
        total = self._answered
        total[0] += 1
        total[1] += ran.queued
        total[2] += decoding
        total[3] += ran.ran
        total[4] += encoding
        total[5] += rows
        batch = self._batches.get(ran.rows) or self._batch(ran.rows)
        batch[1] += decoding
        batch[3] += encoding

    def _batch(self, rows: int) -> list[float]:
        key = rows if len(self._batches) < MAX_BATCH_SIZES else _OTHERS
        return self._batches.setdefault(key, [0.0] * 4)

    def describe(self, name: str, version: str) -> dict[str, Any]:
        """Return the numbers as an entry of the extension's `model_stats`."""
        count, *stages, rows = self._answered
        return {
            "name": name,
            "version": version,
            "last_inference": int(self._last * 1000),
            "inference_count": int(rows),
            "execution_count": int(sum(batch[0] for batch in self._batches.values())),
            "inference_stats": {
                "success": _duration(*self._success),
                "fail": _duration(*self._fail),
                **{stage: _duration(count, seconds) for stage, seconds in zip(_STAGES, stages, strict=True)},
                "cache_hit": _duration(0, 0.0),
                "cache_miss": _duration(0, 0.0),
            },
            "batch_stats": [
                {"batch_size": size,
                 **{stage: _duration(batch[0], batch[index]) for index, stage in enumerate(_STAGES) if index}}
                for size, batch in sorted(self._batches.items()) if size != _OTHERS
            ],
            "memory_usage": [],
        }  # fmt: skip


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": round(seconds * 1e9)}
