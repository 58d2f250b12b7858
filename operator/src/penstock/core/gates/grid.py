"""The fixed geometric grid of latency bounds, and the bounds a rollout compares at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, log

from penstock.core.gates.plan import GROWTH, Plan

GRID = tuple(round(0.001 * GROWTH**k, 9) for k in range(97))
INFINITE = len(GRID)
FLOOR = -1
HISTORY_NEEDED = 200
RECENT_WANTED = 1000
"""Requests of one stable pod that show its latency well, the slowest hundredth included."""
_LEVELS = (0.5, 0.9, 0.99)
_INFORMATIVE = 0.15


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound b_i of stable's latency: its place on the grid, the quantile it stands for, whether PASS needs it.

    The FLOOR stands for "below the grid": latencies under 1 ms count as 1 ms. All of stable is above it, and the
    canary passes there by staying at 1 ms.
    """

    k: int
    level: float
    needed: bool = True

    @property
    def seconds(self) -> float:
        """The bound in seconds."""
        return GRID[max(self.k, 0)]


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
    """Bounds from a cumulative histogram of stable: near its p50, p90 and p99. Empty with fewer than 200 requests.

    Nearest is meant on the share of slower requests, which must not be nil: a bound nobody exceeds can prove
    nothing. Among bounds that split alike, the one next to the bulk of requests sees it move. A bound that hardly
    anybody exceeds would take days to pass, so it only helps to FAIL. Where latency is so narrow that one bucket
    holds most of it, no bound splits it evenly: then the next one above joins, which sees a slow-down at once.
    Where most requests are faster than the grid begins, the FLOOR takes the place of the median.
    """
    total = buckets.get(INFINITE, 0)
    top = _highest(plan)
    if total < HISTORY_NEEDED or any(k not in buckets for k in range(top + 1)):
        return ()
    slower = [1 - buckets[k] / total for k in range(top + 1)]
    candidates = [k for k in range(top + 1) if slower[k] > 0] or [0]
    floored = slower[0] < _INFORMATIVE
    chosen = {FLOOR: Bound(FLOOR, _LEVELS[0])} if floored else {}
    for level in _LEVELS:
        k = min(candidates, key=lambda k: (_misfit(slower[k], level), k if slower[k] < 0.5 else -k))
        needed = slower[k] >= (1 - level) / 3 or not chosen
        chosen.setdefault(k, Bound(k, level, needed))
    middle = next(iter(chosen))
    if not floored and slower[middle] > 1 - _INFORMATIVE:
        above = next((k for k in range(middle + 1, top + 1) if slower[k] < _INFORMATIVE), None)
        if above is not None:
            chosen.setdefault(above, Bound(above, _LEVELS[0], needed=False))
    return tuple(sorted(chosen.values(), key=lambda b: b.k))


def whole(buckets: Mapping[int, int]) -> tuple[int, ...]:
    """A cumulative histogram as counts by grid index, +Inf last; () where a bucket is missing."""
    return tuple(buckets[k] for k in range(INFINITE + 1)) if all(k in buckets for k in range(INFINITE + 1)) else ()


def watched(plan: Plan, bounds: tuple[Bound, ...]) -> tuple[int, ...]:
    """Grid indices whose buckets must be read for these bounds, ascending, INFINITE last; () without bounds."""
    if not bounds or not plan.latency:
        return ()
    ks = {b.k + s for b in bounds if b.k != FLOOR for c in plan.latency for s in (0, c.fail_steps, c.pass_steps)}
    return (*sorted(ks | {0}), INFINITE)


def on_grid(plan: Plan, bounds: tuple[Bound, ...], watch: tuple[int, ...]) -> bool:
    """Whether the canary's bounds, shifted by every gate's ratio, exist, and whether all that is watched does."""
    places = list(watch)
    return all(b.k <= _highest(plan) for b in bounds) and places == sorted({k for k in places if 0 <= k <= INFINITE})


def _misfit(slower: float, level: float) -> float:
    return abs(log(max(slower, 1e-9)) - log(1 - level))


def _highest(plan: Plan) -> int:
    return max(0, INFINITE - 1 - max((c.pass_steps for c in plan.latency), default=0))
