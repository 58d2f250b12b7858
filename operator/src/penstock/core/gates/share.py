"""Does the traffic split look as configured? A guard against routers that ignore their weight."""

from __future__ import annotations

from math import lgamma, log
from typing import Literal

ShareVerdict = Literal["consistent", "inconsistent", "unknown"]
RISK = 1e-4
SLACK = 0.15
_LEAST_EXPECTED = 5.0


def share_consistent(
    canary_n: int, total_n: int, weight: float, risk: float = RISK, slack: float = SLACK
) -> ShareVerdict:
    """Judge the canary's share of requests against its weight in percent.

    Two-sided mixture guard: the evidence of a uniformly mixed share against the best share within `slack` (relative)
    of the weight, which allows for scrapes a little apart. "inconsistent" at evidence 1/risk (however often one
    looks); "consistent" once the weight explains the counts at least as well as the mixture; else "unknown", also
    with fewer than 5 requests expected on either side.
    """
    if not 0 <= canary_n <= total_n:
        raise ValueError(f"{canary_n} canary requests of {total_n}; need 0 <= canary <= total")
    share = weight / 100
    if share <= 0 or share >= 1:
        return _all_or_none(canary_n, total_n, share >= 1)
    if min(share, 1 - share) * total_n < _LEAST_EXPECTED and not _lopsided(canary_n, total_n, share, slack, risk):
        return "unknown"
    evidence = _log_evidence(canary_n, total_n, share, slack)
    if evidence >= log(1 / risk):
        return "inconsistent"
    return "consistent" if evidence <= 0 else "unknown"


def _lopsided(canary_n: int, total_n: int, share: float, slack: float, risk: float) -> bool:
    return _log_evidence(canary_n, total_n, share, slack) >= log(1 / risk)


def _log_evidence(canary_n: int, total_n: int, share: float, slack: float) -> float:
    room = slack * min(share, 1 - share)
    seen = canary_n / total_n if total_n else share
    best = min(max(seen, share - room), share + room)
    mixed = lgamma(canary_n + 1) + lgamma(total_n - canary_n + 1) - lgamma(total_n + 2)
    return mixed - canary_n * log(best) - (total_n - canary_n) * log(1 - best)


def _all_or_none(canary_n: int, total_n: int, everything: bool) -> ShareVerdict:
    """At 0 or 100 % a straggler or two (connections being drained) is no contradiction."""
    strays = total_n - canary_n if everything else canary_n
    if total_n < _LEAST_EXPECTED:
        return "unknown"
    return "consistent" if strays <= max(2, 0.01 * total_n) else "inconsistent"
