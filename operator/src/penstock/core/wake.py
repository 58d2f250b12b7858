"""When a reconcile must come again by itself. Changes of objects wake it sooner, through watches."""

from __future__ import annotations

from penstock.api.status import Stage
from penstock.core import situations as s
from penstock.core.world import World

POLL_SECONDS = 10.0
ROUTE_SECONDS = 1.0


def next_time(world: World) -> float | None:
    """Unix seconds; None when only a change of some object can bring news."""
    times = [r.until.unix() for r in world.status.retiring if r.until]
    rollout = world.status.rollout
    if rollout is None:
        if s.asks_for_something_new(world) and not s.is_paused(world):
            times.append(world.now + POLL_SECONDS)
        return _next(times, world.now)
    if s.is_paused(world) or s.is_suspended(world):
        return _next(times, world.now)
    times.append(world.now + (world.settings.scrape_seconds if rollout.stage == Stage.STEPPING else POLL_SECONDS))
    unconfirmed = not world.traffic.confirmed and rollout.stage in (Stage.STEPPING, Stage.PROMOTING)
    if unconfirmed or s.awaits_the_cohort(world):
        times.append(world.now + ROUTE_SECONDS)
    if rollout.deadline_at:
        times.append(rollout.deadline_at.unix())
    if rollout.step_started_at and rollout.stage == Stage.STEPPING:
        plan, index = s.strategy(world), rollout.step_index or 0
        step = plan.steps[index] if index < len(plan.steps) else None
        if step is not None and step.hold:
            times.append(rollout.step_started_at.unix() + step.hold.seconds())
    return _next(times, world.now) or world.now + POLL_SECONDS


def _next(times: list[float], now: float) -> float | None:
    """The first one still to come. What is due and was not done is held up; some event will say when no longer."""
    return min((t for t in times if t > now), default=None)
