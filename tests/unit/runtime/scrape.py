"""Reading a server's metrics as Prometheus would."""

from __future__ import annotations

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.runtime.process import Server


def families(text: str) -> dict[str, Metric]:
    """Return the metric families in `text` by name, parsed by Prometheus' own client."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def sample(server: Server, name: str, **labels: str) -> float:
    """Return the one sample of that name that has all `labels`.

    The parser adds _total to the names of all counters, which those of the contract do not all have.
    """
    found = [
        item.value
        for family in families(server.metrics_text()).values()
        for item in family.samples
        if item.name in (name, f"{name}_total") and labels.items() <= item.labels.items()
    ]
    assert len(found) == 1, f"{len(found)} samples of {name} {labels}"
    return found[0]


def requests_by_outcome(server: Server) -> dict[str, float]:
    """Return penstock_requests_total by outcome."""
    samples = families(server.metrics_text())["penstock_requests"].samples
    return {item.labels["outcome"]: item.value for item in samples}
