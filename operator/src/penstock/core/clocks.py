"""Moves that stop a rollout's clocks and let them go on: time in which nothing is seen, or may move, does not count.

Deadlines and holds speak of time under observation. So while a rollout is blind, paused or without pods, its clocks
stand still; what was lost is added to all of them when it goes on.
"""

from __future__ import annotations

from penstock.api.base import Timestamp
from penstock.api.conditions import Reason
from penstock.api.status import RolloutStatus, Status, TrafficStatus
from penstock.core.moves import Move
from penstock.core.situations import rollout_of
from penstock.core.world import World


def note_blindness(world: World) -> Move:
    """Nothing can be measured: the weight freezes."""
    message = world.measurement.message if world.measurement else ""
    status = _with(world, 0.0, blind_since=Timestamp.at(world.now))
    return Move(status, Reason.CANNOT_MEASURE, f"frozen at the current weight: {message}", warning=True)


def note_sight(world: World) -> Move:
    """Measuring works again."""
    since = rollout_of(world).blind_since
    lost = world.now - since.unix() if since else 0.0
    status = _with(world, lost, blind_since=None)
    return Move(status, Reason.MEASURED, f"measuring works again after {lost:.0f} s; the rollout goes on")


def note_hold(world: World) -> Move:
    """A human holds the rollout. Blindness until now is settled first, so that no second is counted twice."""
    since = rollout_of(world).blind_since
    lost = world.now - since.unix() if since else 0.0
    status = _with(world, lost, held_since=Timestamp.at(world.now), blind_since=None)
    return Move(status, Reason.PAUSED, "held: its clocks stand still", silent=True)


def note_going_on(world: World) -> Move:
    """Nobody holds it any more."""
    since = rollout_of(world).held_since
    lost = world.now - since.unix() if since else 0.0
    status = _with(world, lost, held_since=None)
    return Move(status, Reason.RESUMED, f"goes on after {lost:.0f} s, which count for no deadline and no hold")


def _with(world: World, lost: float, **changes: Timestamp | None) -> Status:
    """The status with these changes, and with all clocks moved by the seconds that do not count."""
    rollout, traffic = rollout_of(world), world.status.traffic
    moved = _later(rollout, ("started_at", "step_started_at", "deadline_at"), lost)
    rollout = rollout.model_copy(update={**changes, **moved})
    if traffic is not None:
        traffic = traffic.model_copy(update=_later(traffic, ("desired_since",), lost))
    status: Status = world.status.model_copy(update={"rollout": rollout, "traffic": traffic})
    return status


def _later(model: RolloutStatus | TrafficStatus, names: tuple[str, ...], seconds: float) -> dict[str, Timestamp]:
    clocks = {name: getattr(model, name) for name in names}
    return {name: Timestamp.at(clock.unix() + seconds) for name, clock in clocks.items() if clock is not None}
