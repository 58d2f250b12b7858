"""Metrics of the models themselves: what an alert is made of."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from penstock.core.objects import DEPLOYMENT
from penstock.shell.models import ModelMetrics
from penstock.shell.reconciler import Reconciler
from tests.scenario import NAME, NAMESPACE, REF, Scenario, spec
from tests.unit.core.test_story import V2, deployed
from tests.unit.core.test_trouble import stepping

LABELS = {"namespace": NAMESPACE, "name": NAME}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def watched(registry: CollectorRegistry) -> Scenario:
    scenario = Scenario()
    plain = scenario.reconciler
    scenario.reconciler = Reconciler(
        plain.cluster,
        plain.metrics,
        plain.inspector,
        plain.recorder,
        plain.clock,
        plain.settings,
        ModelMetrics(registry).saw,
    )
    return deployed(scenario)


def value(registry: CollectorRegistry, what: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"penstock_modeldeployment_{what}", {**LABELS, **labels})


def test_a_model_that_serves_is_available_and_in_one_phase(registry: CollectorRegistry) -> None:
    scenario = watched(registry)
    assert value(registry, "available") == 1
    assert value(registry, "phase", phase="Healthy") == 1
    scenario.apply(spec(V2))
    scenario.run_until(stepping(25))
    scenario.reconcile()
    assert value(registry, "canary_weight") == 25
    assert (value(registry, "phase", phase="Progressing"), value(registry, "phase", phase="Healthy")) == (1, None)


def test_a_model_whose_pods_are_gone_is_not_available_and_one_that_is_gone_tells_nothing(
    registry: CollectorRegistry,
) -> None:
    scenario = watched(registry)
    scenario.kubelet_works = False
    for deployment in scenario.cluster.all(DEPLOYMENT, NAMESPACE):
        scenario.kubelet.make_ready(deployment, ready=0)
    scenario.tick()
    assert value(registry, "available") == 0
    scenario.cluster.remove(REF)
    scenario.reconcile()
    assert [value(registry, what) for what in ("available", "canary_weight")] == [None, None]
    assert value(registry, "phase", phase="Degraded") is None


def test_a_model_that_was_scaled_to_nothing_pages_nobody(registry: CollectorRegistry) -> None:
    scenario = watched(registry)
    scenario.apply(spec(replicas=0))
    scenario.run_until(lambda status: status.ready == "0/0")
    scenario.reconcile()
    assert value(registry, "available") is None
    scenario.apply(spec())
    scenario.run_until(lambda status: status.ready == "4/4")
    scenario.reconcile()
    assert value(registry, "available") == 1
