"""The race of two e-processes on a bad-outcome rate: is the canary worse, or is it not worse by the margin?

FAIL multiplies, block by block, likelihood ratios of the non-central hypergeometric law (seven odds ratios, equal
weights). PASS multiplies Turner-Gruenwald block e-values with the reverse information projection on the boundary
`canary = stable + margin`. Both are non-negative supermartingales starting at 1 under their null, so by Ville's
inequality P(ever FAIL | canary not worse) <= alpha and P(ever PASS | worse by the margin or more) <= beta,
however often one looks and whenever one stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from penstock.core.gates.hypergeometric import log_mean_exp, log_ratio
from penstock.core.gates.verdict import Block, Verdict

WORSE_ODDS = (1.15, 1.35, 1.7, 2.3, 3.5, 7.0, 20.0)
GAINS = (0.5, 1.0, 1.5)
PRIOR_WEIGHT = 100.0
LEARNING = 20.0
_EDGE = 1e-4
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class TwoSampleState:
    """Evidence so far of one gate; made by `TwoSample.start`, never by hand.

    fail, passing: log e-values of each alternative. bad, good: pseudo-counts of stable's rate from the past only.
    peak_fail, peak_pass: the highest evidence ever reached (crossing once is what the guarantees speak about).
    """

    fail: tuple[float, ...]
    passing: tuple[float, ...]
    bad: float
    good: float
    peak_fail: float = 0.0
    peak_pass: float = 0.0

    @property
    def log_e_fail(self) -> float:
        """ln of the evidence that the canary is worse; 0 = none, ln 20 = 3.0 is a FAIL at alpha 0.05."""
        return log_mean_exp(self.fail)

    @property
    def log_e_pass(self) -> float:
        """ln of the evidence that the canary is not worse by the margin or more."""
        return log_mean_exp(self.passing)


@dataclass(frozen=True, slots=True)
class TwoSample:
    """A gate on the difference of two bad-outcome rates.

    margin: largest tolerable rise of the rate (0 < margin < 1, e.g. 0.02 = two points of accuracy).
    alpha: chance of ever failing a canary that is not worse; beta: chance of ever passing one that is worse by
    the margin. phi: design effect from an A/A comparison (>= 1; 1 = independent outcomes); log evidence is
    divided by it. Raises ValueError outside these ranges.
    """

    margin: float
    alpha: float = 0.05
    beta: float = 0.05
    phi: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise ValueError(f"margin is {self.margin}; need a rate difference between 0 and 1, such as 0.02")
        check_risks(self.alpha, self.beta, self.phi)

    def start(self, prior_bad: float = 0.0, prior_n: float = 0.0) -> TwoSampleState:
        """No evidence yet. Stable's history (bad of n trials before the rollout) only sharpens PASS.

        Histories weigh at most 100 trials. With fewer than 20, PASS sits out blocks until stable has shown that
        many trials: they only teach it the base rate.
        """
        if not 0 <= prior_bad <= prior_n:
            raise ValueError(f"history of {prior_bad} bad outcomes in {prior_n}; need 0 <= bad <= trials")
        scale = min(1.0, PRIOR_WEIGHT / prior_n) if prior_n else 0.0
        zeros = (0.0,) * len(WORSE_ODDS)
        return TwoSampleState(zeros, (0.0,) * len(GAINS), scale * prior_bad, scale * (prior_n - prior_bad))

    def update(self, state: TwoSampleState, block: Block) -> TwoSampleState:
        """Evidence after one more block. A block where an arm has no trials teaches stable's rate only."""
        fail = add_ratios(state.fail, WORSE_ODDS, block, self.phi)
        passing = state.passing
        weight = state.bad + state.good
        if weight >= LEARNING and block.canary_n and block.stable_n:
            rate = state.bad / weight
            passing = tuple(
                m + not_worse(block, rate, self.margin, gain) / self.phi for m, gain in zip(passing, GAINS, strict=True)
            )
        return TwoSampleState(
            fail,
            passing,
            state.bad + block.stable_bad,
            state.good + block.stable_n - block.stable_bad,
            max(state.peak_fail, log_mean_exp(fail)),
            max(state.peak_pass, log_mean_exp(passing)),
        )

    def verdict(self, state: TwoSampleState) -> Verdict:
        """FAIL or PASS once its evidence has ever reached 1/alpha or 1/beta; FAIL wins where both have."""
        if state.peak_fail >= log(1 / self.alpha):
            return Verdict.FAIL
        if state.peak_pass >= log(1 / self.beta):
            return Verdict.PASS
        return Verdict.INSUFFICIENT_DATA


def check_risks(alpha: float, beta: float, phi: float) -> None:
    """Raise ValueError unless 0 < alpha, beta < 1 and phi >= 1."""
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}; need a probability between 0 and 1, such as 0.05")
    if not phi >= 1:
        raise ValueError(f"phi is {phi}; a design effect is at least 1")


def add_ratios(logs: tuple[float, ...], odds: tuple[float, ...], block: Block, phi: float) -> tuple[float, ...]:
    """Log e-values after one block, one for each alternative odds ratio (null: odds ratio 1)."""
    bad = block.canary_bad + block.stable_bad
    if bad in (0, block.canary_n + block.stable_n) or not block.canary_n or not block.stable_n:
        return logs
    return tuple(
        value + log_ratio(block.canary_bad, block.canary_n, block.stable_n, bad, w) / phi
        for value, w in zip(logs, odds, strict=True)
    )


def not_worse(block: Block, rate: float, margin: float, gain: float) -> float:
    """Log e-value of a block against `canary >= stable + margin`, sharp when canary = stable - (gain-1)*margin."""
    th_s = min(max(rate, _EDGE), 1 - _EDGE)
    th_c = min(max(rate + margin * (1 - gain), _EDGE), 1 - _EDGE)
    q = _project(block.canary_n, block.stable_n, th_c, th_s, margin)
    c = q + margin
    return (
        block.canary_bad * log(th_c / c)
        + (block.canary_n - block.canary_bad) * log((1 - th_c) / (1 - c))
        + block.stable_bad * log(th_s / q)
        + (block.stable_n - block.stable_bad) * log((1 - th_s) / (1 - q))
    )


def _project(n_c: int, n_s: int, th_c: float, th_s: float, margin: float) -> float:
    """Stable's rate q of the null (q, q + margin) nearest to the alternative, by bisection."""
    lo = max(th_c - margin, 1e-12)
    hi = min(th_s, 1 - margin - 1e-12)
    if lo >= hi:
        return hi
    for _ in range(_BISECTIONS):
        q = (lo + hi) / 2
        c = q + margin
        if n_c * (th_c - c) / (c * (1 - c)) + n_s * (th_s - q) / (q * (1 - q)) > 0:
            lo = q
        else:
            hi = q
    return (lo + hi) / 2
