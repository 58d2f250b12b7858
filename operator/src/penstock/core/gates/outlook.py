"""How much more is needed: rules of thumb for people, never part of a decision."""

from __future__ import annotations

from math import log

from penstock.core.gates.hypergeometric import log_mean_exp
from penstock.core.gates.latency import LatencyState
from penstock.core.gates.plan import Comparison, Plan
from penstock.core.gates.record import GateRecord

_SHRINK = 50


def rate(record: GateRecord) -> float | None:
    """Canary trials per second so far, None where unknown."""
    if record.first_at is None or record.last_at is None or record.last_at <= record.first_at:
        return None
    return record.canary_n / (record.last_at - record.first_at) or None


def lagging_bound(record: GateRecord) -> int:
    """Index of the bound that keeps a latency gate from passing."""
    if not isinstance(record.state, LatencyState):
        return 0
    needed = [i for i, n in enumerate(record.state.needed) if n]
    return min(needed, key=lambda i: record.state.peaks[i] if isinstance(record.state, LatencyState) else 0.0)


def accusing_bound(record: GateRecord) -> int:
    """Index of the bound with the most evidence for a slower canary."""
    if not isinstance(record.state, LatencyState):
        return 0
    logs = [log_mean_exp(values) for values in record.state.fail]
    return logs.index(max(logs))


def canary_trials_to_pass(plan: Plan, comparison: Comparison, record: GateRecord) -> int | None:
    """About how many more canary trials a PASS needs if rates stay as they are; None where they do not allow one.

    Each canary trial adds about D^2 / (2 p (1-p) (1 + canary/stable)) nats, D = distance to the margin, p = mean bad
    rate. An observed difference on few trials is taken with caution (shrunk as if by 50 trials without one).
    """
    if not record.canary_n or not record.stable_n or record.state is None:
        return None
    if comparison.signal == "latency":
        i = lagging_bound(record)
        slow_stable, _, slow_canary = record.slow[i]
        p_s, p_c = slow_stable / record.stable_n, slow_canary / record.canary_n
        distance = p_s - p_c
        held = record.state.peaks[i] if isinstance(record.state, LatencyState) else 0.0
    else:
        p_s, p_c = record.stable_bad / record.stable_n, record.canary_bad / record.canary_n
        shrunk = (p_c - p_s) * record.canary_n / (record.canary_n + _SHRINK)
        distance = comparison.margin - shrunk
        held = record.state.log_e_pass
    if distance <= 0:
        return None
    mean = (record.canary_n * p_c + record.stable_n * p_s + 0.5) / (record.canary_n + record.stable_n + 1)
    phi = comparison.phi or 1.0
    gain = distance**2 / (2 * mean * (1 - mean) * (1 + record.canary_n / record.stable_n)) / phi
    return max(1, round((log(1 / plan.beta) - held) / gain))
