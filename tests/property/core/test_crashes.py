"""The operator may die at any write: a new one goes on as if nothing had happened.

A story is played once undisturbed to count its writes, then once more for each write, killed before or after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from penstock.api.status import Phase
from penstock.core.objects import CONTROLLER_REVISION, DEPLOYMENT, ROLLOUT_ANALYSIS
from tests.fakes.cluster import Crash
from tests.scenario import NAMESPACE, Behaviour, Scenario, outcomes, spec

V1, V2 = "http://files/v1.onnx", "http://files/v2.onnx"


@dataclass(frozen=True)
class Ending:
    """What must not depend on crashes."""

    phase: str | None
    stable: str | None
    outcomes: tuple[str, ...]
    weights: tuple[int, ...]
    refused: tuple[tuple[str | None, str | None], ...]
    records: tuple[tuple[str, str | None], ...]
    analyses: tuple[tuple[str, str], ...]
    deployments: int
    shares: tuple[tuple[str, float], ...]


def ending(scenario: Scenario) -> Ending:
    status = scenario.status
    return Ending(
        phase=status.phase,
        stable=status.stable.uri if status.stable else None,
        outcomes=tuple(outcomes(status)),
        weights=tuple(scenario.weights_seen),
        refused=tuple((r.gate, r.reason) for r in status.rejected),
        records=tuple(
            (r["data"]["model"]["uri"], r["metadata"].get("annotations", {}).get("penstock.dev/outcome"))
            for r in scenario.cluster.all(CONTROLLER_REVISION, NAMESPACE)
        ),
        analyses=tuple(
            (a["spec"]["canary"], a["status"]["phase"]) for a in scenario.cluster.all(ROLLOUT_ANALYSIS, NAMESPACE)
        ),
        deployments=len(scenario.cluster.all(DEPLOYMENT, NAMESPACE)),
        shares=tuple(sorted(scenario.shares().items())),
    )


def play(scenario: Scenario, second: Behaviour, on_crash: Callable[[Scenario], object]) -> Scenario:
    """v1 becomes healthy, v2 is applied and comes to its end; crashes restart the operator."""
    scenario.behaviours = {V2: second}

    def until(done: Callable[[], bool]) -> None:
        for _ in range(400):
            if done():
                return
            try:
                scenario.tick()
            except Crash:
                on_crash(scenario)
        raise AssertionError(f"never came: {scenario.status.message}")

    scenario.apply(spec(V1, replicas=2))
    until(lambda: scenario.status.phase == Phase.HEALTHY)
    scenario.apply(spec(V2, replicas=2))
    until(lambda: len(scenario.status.history) == 2)
    for _ in range(12):
        try:
            scenario.tick()
        except Crash:
            on_crash(scenario)
    return scenario


STORIES = {
    "promoted": Behaviour(),
    "rolled back": Behaviour(errors=0.4),
    "rejected": Behaviour(loads=False),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_crash_at_any_write_changes_nothing_in_the_end(story: str) -> None:
    undisturbed = play(Scenario(), STORIES[story], on_crash=lambda _: None)
    expected, writes = ending(undisturbed), len(undisturbed.cluster.writes)
    assert writes > 20
    for n in range(writes + 1):  # after write n is before write n + 1
        scenario = Scenario()
        scenario.cluster.crash_at(max(n, 1), "after" if n else "before")
        play(scenario, STORIES[story], on_crash=lambda s: s.new_operator())
        assert ending(scenario) == expected, f"killed after write {n}: {undisturbed.cluster.writes[max(n, 1) - 1]}"
