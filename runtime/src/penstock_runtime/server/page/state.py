"""What the page shows of a server that changes from second to second: sums, from which the page takes differences."""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.repository.repository import Repository


def state(repository: Repository, uptime: float) -> dict[str, Any]:
    """Return the state of the process, up for `uptime` seconds, and of its models."""
    return {
        "uptime_seconds": round(uptime),
        "memory_bytes": memory_bytes(),
        "ready": repository.ready,
        "why_not_ready": repository.why_not_ready(),
        "in_flight": repository.in_flight,
        "models": [_model(model) for model in repository.models.values()],
    }


def _model(model: Model) -> dict[str, Any]:
    metrics = model.metrics
    metrics.settle()
    return {
        "name": model.name,
        "state": model.state,
        "reason": model.reason,
        # Tells a model that was loaded anew from the one before.
        "loads": [metrics.loads["ok"], *model.versions],
        "requests": metrics.requests,
        "durations": metrics.request_seconds.buckets(),
        "queue": [metrics.queue_seconds.sum, metrics.queue_seconds.count],
        "batches": [metrics.batch_size.sum, metrics.batch_size.count],
        "in_flight": sum(serving.in_flight for serving in model.versions.values()),
    }


def add_up_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of a server with several workers, from theirs. A model is in the worst state that it is in."""
    first = states[0]
    worst = next((each for each in states if not each["ready"]), first)
    return {
        **first,
        "memory_bytes": sum(each["memory_bytes"] for each in states),
        "in_flight": sum(each["in_flight"] for each in states),
        "ready": worst["ready"],
        "why_not_ready": worst["why_not_ready"],
        "models": [
            _add_up([model for each in states for model in each["models"] if model["name"] == known["name"]])
            for known in first["models"]
        ],
    }


def _add_up(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    durations: Counter[str] = Counter()
    for model in models:
        durations.update(dict(model["durations"]))
    worst = next((model for model in models if model["state"] != "READY"), models[0])
    return {
        **worst,
        "requests": {name: sum(model["requests"][name] for model in models) for name in worst["requests"]},
        "durations": sorted(durations.items(), key=lambda bucket: float(bucket[0])),
        "queue": [sum(numbers) for numbers in zip(*(model["queue"] for model in models), strict=True)],
        "batches": [sum(numbers) for numbers in zip(*(model["batches"] for model in models), strict=True)],
        "in_flight": sum(model["in_flight"] for model in models),
    }


def memory_bytes() -> int:
    """Return the memory of this process that is in RAM; where the system does not tell, the most it ever was."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
