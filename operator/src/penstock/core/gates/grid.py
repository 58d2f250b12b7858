"""The fixed geometric grid of latency bounds, and the bounds a rollout compares at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, log

from penstock.core.gates.plan import GROWTH, Plan

GRID = tuple(round(0.001 * GROWTH**k, 9) for k in range(97))
INFINITE = len(GRID)
HISTORY_NEEDED = 200
_LEVELS = (0.5, 0.9, 0.99)
_INFORMATIVE = 0.15


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound b_i of stable's latency: its place on the grid, the quantile it stands for, whether PASS needs it."""

    k: int
    level: float
    needed: bool = True

    @property
    def seconds(self) -> float:
        """The bound in seconds."""
        return GRID[self.k]


@lru_cache(maxsize=1024)
def place(le: str) -> int | None:
    """Grid index of a bucket's `le` label (INFINITE for +Inf); None where it is not a bound of the grid."""
    try:
        seconds = float(le)
    except ValueError:
        return None
    if seconds == inf:
        return INFINITE
    if not seconds > 0:
        return None
    k = round(log(seconds / GRID[0]) / log(GROWTH))
    if 0 <= k < INFINITE and abs(seconds / GRID[k] - 1) < 1e-6:
        return k
    return None


def fixed_bounds(plan: Plan) -> tuple[Bound, ...]:
    """The bounds the plan names, each snapped to the nearest one of the grid."""
    top = _highest(plan)
    ks = (round(log(max(b, GRID[0]) / GRID[0]) / log(GROWTH)) for b in plan.latency_bounds)
    return tuple(Bound(k, 0.0) for k in sorted({min(k, top) for k in ks}))


def choose_bounds(plan: Plan, buckets: Mapping[int, int]) -> tuple[Bound, ...]:
    """Bounds from a cumulative histogram of stable: near its p50, p90 and p99.

    Nearest is meant on the share of slower requests, which must not be nil: a bound nobody exceeds can prove
    nothing. Where latency is so narrow that one bucket holds most of it, no bound splits it evenly; then the
    next bound above joins, which cannot PASS but sees a slow-down at once. Empty with fewer than 200 requests.
    """
    total = buckets.get(INFINITE, 0)
    top = _highest(plan)
    if total < HISTORY_NEEDED or any(k not in buckets for k in range(top + 1)):
        return ()
    slower = [1 - buckets[k] / total for k in range(top + 1)]
    candidates = [k for k in range(top + 1) if slower[k] > 0] or [0]
    chosen: dict[int, Bound] = {}
    for level in _LEVELS:
        k = min(candidates, key=lambda k: abs(log(max(slower[k], 1e-9)) - log(1 - level)))
        chosen.setdefault(k, Bound(k, level))
    middle = next(iter(chosen))
    if slower[middle] > 1 - _INFORMATIVE:
        above = next((k for k in range(middle + 1, top + 1) if slower[k] < _INFORMATIVE), None)
        if above is not None:
            chosen.setdefault(above, Bound(above, _LEVELS[0], needed=False))
    return tuple(sorted(chosen.values(), key=lambda b: b.k))


def watched(plan: Plan, bounds: tuple[Bound, ...]) -> tuple[int, ...]:
    """Grid indices whose buckets must be read for these bounds, ascending, INFINITE last; () without bounds."""
    if not bounds or not plan.latency:
        return ()
    ks = {b.k + s for b in bounds for c in plan.latency for s in (0, c.fail_steps, c.pass_steps)}
    return (*sorted(ks), INFINITE)


def _highest(plan: Plan) -> int:
    return max(0, INFINITE - 1 - max((c.pass_steps for c in plan.latency), default=0))
