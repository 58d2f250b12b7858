"""Fisher's non-central hypergeometric law: the nuisance-free heart of every two-sample gate.

Given the totals of a block, the number of bad canary outcomes follows this law, whose only parameter is the
odds ratio between the arms. Whatever hits both arms alike (load, time of day, an outage behind them) cancels.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, inf, lgamma, log, sqrt

_NEGLIGIBLE = 1e-18
_STRIDE_FROM_SD = 10.0
_STRIDES_PER_SD = 1.6


def log_mean_exp(values: Iterable[float]) -> float:
    """ln of the mean of exp(values), without overflow; -inf for no values."""
    items = tuple(values)
    if not items:
        return -inf
    top = max(items)
    if top == -inf:
        return -inf
    return top + log(sum(exp(v - top) for v in items) / len(items))


def log_choose(n: int, k: int) -> float:
    """ln of the binomial coefficient, for 0 <= k <= n."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def log_tilt(canary_n: int, stable_n: int, bad: int, odds: float) -> float:
    """ln E[odds**U], U = bad outcomes among the canary's when `bad` of all are bad and the arms are alike.

    This is ln Z(odds) - ln Z(1) for Z(w) = sum_u C(canary_n, u) C(stable_n, bad - u) w**u.

    Summed outwards from the largest term until terms fall below 1e-18 of the sum. Wide laws (standard deviation
    s >= 10) are summed with a stride h = s/1.6 instead: U is a sum of independent coin flips, so its
    characteristic function is at most exp(-s^2 (1 - cos x)), and by Poisson summation the relative error of
    the strided sum is below h exp(-s^2 (1 - cos(2 pi / h))) < 1e-20. Cost is therefore bounded whatever the
    size of the block.
    """
    lo, hi = max(0, bad - stable_n), min(canary_n, bad)
    log_w = log(odds)
    if lo == hi:
        return lo * log_w
    mode = min(max(_mode(canary_n, stable_n, bad, odds), lo), hi)
    peak = log_choose(canary_n, mode) + log_choose(stable_n, bad - mode) + mode * log_w
    sd = _spread(canary_n, stable_n, bad, mode)
    if sd < _STRIDE_FROM_SD:
        total = _sum_all(canary_n, stable_n, bad, odds, mode)
    else:
        total = _sum_strided(canary_n, stable_n, bad, log_w, mode, int(sd / _STRIDES_PER_SD))
    return peak + log(total) - log_choose(canary_n + stable_n, bad)


def log_ratio(canary_bad: int, canary_n: int, stable_n: int, bad: int, odds: float) -> float:
    """Log likelihood ratio of the odds ratio `odds` against 1, given the block's totals."""
    return canary_bad * log(odds) - log_tilt(canary_n, stable_n, bad, odds)


def _mode(canary_n: int, stable_n: int, bad: int, odds: float) -> int:
    a = odds - 1.0
    b = (canary_n + bad + 2) * odds + stable_n - bad
    c = (canary_n + 1.0) * (bad + 1.0) * odds
    return int(2.0 * c / (b + sqrt(max(b * b - 4.0 * a * c, 0.0))))


def _spread(canary_n: int, stable_n: int, bad: int, mode: int) -> float:
    cells = (mode, canary_n - mode, bad - mode, stable_n - bad + mode)
    return 1.0 / sqrt(sum(1.0 / (cell + 1.0) for cell in cells))


def _sum_all(canary_n: int, stable_n: int, bad: int, odds: float, mode: int) -> float:
    """Sum of all terms relative to the one at the mode."""
    rest = stable_n - bad
    total = term = 1.0
    u = mode
    while True:
        term *= (canary_n - u) * (bad - u) * odds / ((u + 1) * (rest + u + 1))
        if term < _NEGLIGIBLE * total:
            break
        total += term
        u += 1
    term = 1.0
    u = mode
    while True:
        term *= u * (rest + u) / ((canary_n - u + 1) * (bad - u + 1) * odds)
        if term < _NEGLIGIBLE * total:
            return total
        total += term
        u -= 1


def _sum_strided(canary_n: int, stable_n: int, bad: int, log_w: float, mode: int, stride: int) -> float:
    rest = stable_n - bad
    lo, hi = max(0, -rest), min(canary_n, bad)

    def height(u: int) -> float:
        return u * log_w - lgamma(u + 1) - lgamma(canary_n - u + 1) - lgamma(bad - u + 1) - lgamma(rest + u + 1)

    peak = height(mode)
    total = 1.0
    for step in (stride, -stride):
        u = mode + step
        while lo <= u <= hi:
            term = exp(height(u) - peak)
            if term < _NEGLIGIBLE * total:
                break
            total += term
            u += step
    return total * stride
