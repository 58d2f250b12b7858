"""The non-central hypergeometric law against exact integer arithmetic."""

from __future__ import annotations

from decimal import Decimal, localcontext
from math import comb, inf, log

import pytest

from penstock.core.gates import hypergeometric
from penstock.core.gates.hypergeometric import log_choose, log_mean_exp, log_ratio, log_tilt

ODDS = (0.33, 0.9, 1.15, 3.5, 20.0)


def exact_tilt(canary_n: int, stable_n: int, bad: int, odds: float) -> float:
    with localcontext() as context:
        context.prec = 60
        support = range(max(0, bad - stable_n), min(canary_n, bad) + 1)
        z = sum(Decimal(comb(canary_n, u) * comb(stable_n, bad - u)) * Decimal(odds) ** u for u in support)
        return float((z / Decimal(comb(canary_n + stable_n, bad))).ln())


@pytest.mark.parametrize("odds", ODDS)
@pytest.mark.parametrize(
    ("canary_n", "stable_n", "bad"),
    [(1, 1, 1), (5, 7, 3), (5, 7, 11), (20, 180, 10), (30, 5, 20), (3, 50, 52), (100, 400, 250), (300, 3000, 1500)],
)
def test_matches_exact_sums(canary_n: int, stable_n: int, bad: int, odds: float) -> None:
    assert log_tilt(canary_n, stable_n, bad, odds) == pytest.approx(
        exact_tilt(canary_n, stable_n, bad, odds), abs=1e-10
    )


@pytest.mark.parametrize(("canary_n", "stable_n", "bad"), [(0, 9, 4), (9, 0, 4), (4, 6, 0), (4, 6, 10)])
def test_a_law_of_one_point_says_nothing(canary_n: int, stable_n: int, bad: int) -> None:
    only = min(canary_n, bad)
    assert log_ratio(only, canary_n, stable_n, bad, 7.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("odds", ODDS)
@pytest.mark.parametrize(("canary_n", "stable_n", "bad"), [(2400, 24000, 5000), (60000, 600000, 300000)])
def test_strides_lose_nothing(canary_n: int, stable_n: int, bad: int, odds: float) -> None:
    mode = hypergeometric._mode(canary_n, stable_n, bad, odds)
    sd = hypergeometric._spread(canary_n, stable_n, bad, mode)
    assert sd >= 10
    whole = hypergeometric._sum_all(canary_n, stable_n, bad, odds, mode)
    strided = hypergeometric._sum_strided(canary_n, stable_n, bad, log(odds), mode, int(sd / 1.6))
    assert strided == pytest.approx(whole, rel=2e-9)


def test_the_mode_is_where_terms_stop_growing() -> None:
    for canary_n, stable_n, bad in ((20, 180, 10), (7, 3, 6), (50, 50, 60)):
        for odds in ODDS:
            support = range(max(0, bad - stable_n), min(canary_n, bad) + 1)
            weights = {u: comb(canary_n, u) * comb(stable_n, bad - u) * odds**u for u in support}
            mode = hypergeometric._mode(canary_n, stable_n, bad, odds)
            assert weights[mode] == pytest.approx(max(weights.values()))


def test_log_mean_exp() -> None:
    assert log_mean_exp([]) == -inf
    assert log_mean_exp([-inf, -inf]) == -inf
    assert log_mean_exp([1000.0, 1000.0]) == pytest.approx(1000.0)
    assert log_mean_exp([0.0, log(3.0)]) == pytest.approx(log(2.0))


def test_log_choose() -> None:
    assert log_choose(49, 6) == pytest.approx(log(13983816))
