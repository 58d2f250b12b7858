"""Does the traffic split look as configured? A guard against routers that ignore their weight."""

from __future__ import annotations

from math import lgamma, log

RISK = 1e-4
SLACK = 0.15
_LEAST_EXPECTED = 5.0


def share_consistent(
    canary_n: int, total_n: int, weight: float, risk: float = RISK, slack: float = SLACK
) -> bool | None:
    """Whether the canary's share of requests fits its weight (a fraction, 0 to 1); None = cannot tell yet.

    Two-sided mixture guard: the evidence of a uniformly mixed share against the best share within `slack` (relative)
    of the weight, which allows for scrapes a little apart. False at evidence 1/risk (however often one looks); True
    once the weight explains the counts at least as well as the mixture and at least 5 requests were due on either
    side. Raises ValueError for counts or weights that cannot be.
    """
    if not 0 <= canary_n <= total_n:
        raise ValueError(f"{canary_n} canary requests of {total_n}; need 0 <= canary <= total")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight}; need a fraction between 0 and 1")
    if weight in (0, 1):
        return _all_or_none(canary_n, total_n, weight == 1)
    evidence = _log_evidence(canary_n, total_n, weight, slack)
    if evidence >= log(1 / risk):
        return False
    expected = min(weight, 1 - weight) * total_n
    return True if evidence <= 0 and expected >= _LEAST_EXPECTED else None


def _log_evidence(canary_n: int, total_n: int, share: float, slack: float) -> float:
    room = slack * min(share, 1 - share)
    seen = canary_n / total_n if total_n else share
    best = min(max(seen, share - room), share + room)
    mixed = lgamma(canary_n + 1) + lgamma(total_n - canary_n + 1) - lgamma(total_n + 2)
    return mixed - canary_n * log(best) - (total_n - canary_n) * log(1 - best)


def _all_or_none(canary_n: int, total_n: int, everything: bool) -> bool | None:
    """At 0 or 100 % a straggler or two (connections being drained) is no contradiction."""
    strays = total_n - canary_n if everything else canary_n
    if total_n < _LEAST_EXPECTED:
        return None
    return strays <= max(2, 0.01 * total_n)
