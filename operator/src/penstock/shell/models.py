"""What the operator tells of the models it looks after, as metrics: whom to page for, and which rollouts run."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from penstock.api.conditions import ConditionStatus, ConditionType, Reason, find_condition
from penstock.api.status import Status

from .workers import Key

_NAMES = ("namespace", "name")


class ModelMetrics:
    """One set of series for each ModelDeployment, as its status was last written; none once it is gone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._available = Gauge(
            "penstock_modeldeployment_available",
            "1 while the model answers requests, 0 while nobody is served; absent where it is scaled to 0",
            _NAMES,
            registry=registry,
        )
        self._phase = Gauge(
            "penstock_modeldeployment_phase", "1 for the phase it is in", (*_NAMES, "phase"), registry=registry
        )
        self._weight = Gauge(
            "penstock_modeldeployment_canary_weight",
            "Percent of the requests that its canary gets",
            _NAMES,
            registry=registry,
        )
        self._phases: dict[Key, str] = {}

    def saw(self, key: Key, status: Status | None) -> None:
        """A ModelDeployment has this status; None: it is gone."""
        if (before := self._phases.pop(key, None)) is not None:
            self._phase.remove(*key, before)
        if status is None or status.phase is None:
            self._weight.remove(*key)
            self._available.remove(*key)
            return
        self._phases[key] = str(status.phase)
        self._phase.labels(*key, self._phases[key]).set(1)
        self._weight.labels(*key).set((status.traffic.applied_weight if status.traffic else 0) or 0)
        ready = find_condition(status.conditions, ConditionType.READY)
        available = find_condition(status.conditions, ConditionType.AVAILABLE)
        serves = available is not None and available.status == ConditionStatus.TRUE
        if not serves and ready is not None and ready.reason == Reason.SUSPENDED:
            self._available.remove(*key)
        else:
            self._available.labels(*key).set(serves)
