"""Latency as counts: is the canary's quantile above r times stable's, at the levels where stable's bounds sit?

Counting requests above `r * b` on the canary against requests above `b` on stable carries the ratio r into an
ordinary two-sample test with margin 0: no quantile is estimated and nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from penstock.core.gates.hypergeometric import log_mean_exp
from penstock.core.gates.twosample import WORSE_ODDS, add_ratios, check_risks
from penstock.core.gates.verdict import Block, Verdict

BETTER_ODDS = (0.9, 0.8, 0.65, 0.5, 0.33)


@dataclass(frozen=True, slots=True)
class LatencyBlock:
    """Requests of both arms over the same time, and how many were slower than each bound b_i.

    stable_above[i]: stable requests above b_i. canary_above_fail[i], canary_above_pass[i]: canary requests above
    r_fail * b_i and r_pass * b_i. `n` is the +Inf bucket of the same histogram, never a separate counter.
    """

    canary_n: int
    stable_n: int
    stable_above: tuple[int, ...]
    canary_above_fail: tuple[int, ...]
    canary_above_pass: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LatencyState:
    """Evidence of a latency gate: log e-values by bound and alternative, and each bound's highest PASS."""

    fail: tuple[tuple[float, ...], ...]
    passing: tuple[tuple[float, ...], ...]
    needed: tuple[bool, ...]
    peaks: tuple[float, ...]
    peak_fail: float = 0.0

    @property
    def log_e_fail(self) -> float:
        """ln of the mean over bounds of the evidence that the canary is slower than r_fail allows."""
        return log_mean_exp(log_mean_exp(logs) for logs in self.fail)

    @property
    def log_e_pass(self) -> float:
        """ln of the highest evidence ever reached by the bound that lags most (every needed one must pass)."""
        return min((p for p, needed in zip(self.peaks, self.needed, strict=True) if needed), default=0.0)

    @property
    def peak_pass(self) -> float:
        """The same as `log_e_pass`, which is a running maximum already."""
        return self.log_e_pass


@dataclass(frozen=True, slots=True)
class LatencyShift:
    """A gate on latency ratios at several bounds.

    FAIL when the mean of the bounds' e-values reaches 1/alpha (a mean of e-processes is one). PASS when every
    bound in `needed` has at some time reached 1/beta (intersection-union: no correction). Bounds that are not
    needed only help to FAIL. alpha, beta, phi as in TwoSample.
    """

    needed: tuple[bool, ...] = (True,)
    alpha: float = 0.05
    beta: float = 0.05
    phi: float = 1.0

    def __post_init__(self) -> None:
        if not any(self.needed):
            raise ValueError("a latency gate needs at least one bound that can pass")
        check_risks(self.alpha, self.beta, self.phi)

    def start(self) -> LatencyState:
        """No evidence yet."""
        m = len(self.needed)
        return LatencyState(
            ((0.0,) * len(WORSE_ODDS),) * m,
            ((0.0,) * len(BETTER_ODDS),) * m,
            self.needed,
            (0.0,) * m,
        )

    def update(self, state: LatencyState, block: LatencyBlock) -> LatencyState:
        """Evidence after one more block; ValueError where the block has another number of bounds."""
        fail, passing, peaks = [], [], []
        for logs_f, logs_p, peak, slow_s, slow_f, slow_p in zip(
            state.fail,
            state.passing,
            state.peaks,
            block.stable_above,
            block.canary_above_fail,
            block.canary_above_pass,
            strict=True,
        ):
            fail.append(add_ratios(logs_f, WORSE_ODDS, Block(slow_f, block.canary_n, slow_s, block.stable_n), self.phi))
            better = add_ratios(logs_p, BETTER_ODDS, Block(slow_p, block.canary_n, slow_s, block.stable_n), self.phi)
            passing.append(better)
            peaks.append(max(peak, log_mean_exp(better)))
        after = LatencyState(tuple(fail), tuple(passing), state.needed, tuple(peaks), state.peak_fail)
        return LatencyState(
            after.fail, after.passing, after.needed, after.peaks, max(state.peak_fail, after.log_e_fail)
        )

    def verdict(self, state: LatencyState) -> Verdict:
        """As TwoSample.verdict."""
        if state.peak_fail >= log(1 / self.alpha):
            return Verdict.FAIL
        if state.log_e_pass >= log(1 / self.beta):
            return Verdict.PASS
        return Verdict.INSUFFICIENT_DATA
