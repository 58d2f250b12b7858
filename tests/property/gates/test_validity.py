"""The guarantee itself, by exact enumeration: under every null of a grid the expected evidence is at most 1."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from math import comb, exp

import pytest

from penstock.core.gates import Block, LatencyBlock, LatencyShift, TwoSample
from penstock.core.gates.hypergeometric import log_ratio
from penstock.core.gates.latency import BETTER_ODDS
from penstock.core.gates.twosample import WORSE_ODDS

ROUNDING = 1e-6
SIZES = [(1, 1), (1, 9), (4, 4), (9, 2), (3, 20), (8, 30)]
RATES = (0.0, 0.003, 0.05, 0.3, 0.5, 0.9, 1.0)


def binomial(n: int, p: float) -> list[float]:
    return [comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)]


def outcomes(n_c: int, n_s: int, p_c: float, p_s: float) -> Iterator[tuple[Block, float]]:
    """Every block of independent outcomes with its probability."""
    for (x_c, a), (x_s, b) in product(enumerate(binomial(n_c, p_c)), enumerate(binomial(n_s, p_s))):
        if a * b > 0:
            yield Block(x_c, n_c, x_s, n_s), a * b


@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_fail_evidence_of_a_canary_that_is_not_worse(n_c: int, n_s: int) -> None:
    gate = TwoSample(margin=0.02)
    start = gate.start(5, 100)
    e_of = cache(lambda x_c, x_s: exp(gate.update(start, Block(x_c, n_c, x_s, n_s)).log_e_fail))
    for p_c, p_s in product(RATES, RATES):
        if p_c <= p_s:
            mean = sum(p * e_of(b.canary_bad, b.stable_bad) for b, p in outcomes(n_c, n_s, p_c, p_s))
            assert mean <= 1 + ROUNDING, (p_c, p_s)


@pytest.mark.parametrize("odds", [*WORSE_ODDS, *BETTER_ODDS])
@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_each_ratio_averages_to_one_given_the_totals(n_c: int, n_s: int, odds: float) -> None:
    """Design-based: random routing alone makes the law hypergeometric, whatever the requests have in common."""
    for bad in range(n_c + n_s + 1):
        support = range(max(0, bad - n_s), min(n_c, bad) + 1)
        law = {x: comb(n_c, x) * comb(n_s, bad - x) / comb(n_c + n_s, bad) for x in support}
        mean = sum(p * exp(log_ratio(x, n_c, n_s, bad, odds)) for x, p in law.items())
        assert mean == pytest.approx(1.0, abs=ROUNDING)


@pytest.mark.parametrize("prior", [(5, 100), (0, 100), (0.2, 100), (60, 100), (100, 100), (0, 0)])
@pytest.mark.parametrize("margin", [0.005, 0.02, 0.3])
@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_pass_evidence_of_a_canary_worse_by_the_margin(
    n_c: int, n_s: int, margin: float, prior: tuple[float, float]
) -> None:
    gate = TwoSample(margin=margin)
    start = gate.start(*prior)
    e_of = cache(lambda x_c, x_s: exp(gate.update(start, Block(x_c, n_c, x_s, n_s)).log_e_pass))
    for p_s, excess in product(RATES, (0.0, 0.1)):
        p_c = p_s + margin + excess
        if p_c <= 1:
            mean = sum(p * e_of(b.canary_bad, b.stable_bad) for b, p in outcomes(n_c, n_s, p_c, p_s))
            assert mean <= 1 + ROUNDING, (p_c, p_s)


@pytest.mark.parametrize("p_s", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("phi", [1.0, 2.5])
def test_evidence_of_several_blocks_with_rates_that_drift(p_s: float, phi: float) -> None:
    """Three blocks in a row, stable's rate learnt on the way, the true rates another in each block."""
    gate = TwoSample(margin=0.1, phi=phi)
    sizes = [(2, 3), (1, 4), (2, 2)]
    drift = (0.0, 0.2, 0.05)
    for worse in (0.0, gate.margin):
        laws = [list(outcomes(*size, p_s + d + worse, p_s + d)) for size, d in zip(sizes, drift, strict=True)]
        mean_fail = mean_pass = 0.0
        for path in product(*laws):
            state, chance = gate.start(20, 100), 1.0
            for block, p in path:
                state, chance = gate.update(state, block), chance * p
            mean_fail += chance * exp(state.log_e_fail)
            mean_pass += chance * exp(state.log_e_pass)
        if worse:
            assert mean_pass <= 1 + ROUNDING
            assert mean_fail > 1
        else:
            assert mean_fail <= 1 + ROUNDING


@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_latency_evidence(n_c: int, n_s: int) -> None:
    """Two bounds. FAIL where the canary is not slower, PASS of each bound where it is slower by the margin or more."""
    gate = LatencyShift((True, True))
    start = gate.start()

    @cache
    def e_of(x_c: int, x_s: int) -> tuple[float, float]:
        state = gate.update(start, LatencyBlock(n_c, n_s, (x_s, 0), (x_c, 0), (x_c, 0)))
        return exp(state.log_e_fail), sum(exp(v) for v in state.passing[0]) / len(BETTER_ODDS)

    for p_c, p_s in product(RATES, RATES):
        fail = sum(p * e_of(b.canary_bad, b.stable_bad)[0] for b, p in outcomes(n_c, n_s, p_c, p_s))
        passing = sum(p * e_of(b.canary_bad, b.stable_bad)[1] for b, p in outcomes(n_c, n_s, p_c, p_s))
        if p_c <= p_s:
            assert fail <= 1 + ROUNDING, (p_c, p_s)
        if p_c >= p_s:
            assert passing <= 1 + ROUNDING, (p_c, p_s)
