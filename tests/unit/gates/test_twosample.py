"""The two-sample gate by numbers worked out independently, its race, and what it refuses."""

from __future__ import annotations

from math import comb, exp, log

import pytest

from penstock.core.gates import Block, TwoSample, TwoSampleState, Verdict
from penstock.core.gates.twosample import GAINS, WORSE_ODDS


def feed(gate: TwoSample, state: TwoSampleState, block: Block, times: int = 1) -> TwoSampleState:
    for _ in range(times):
        state = gate.update(state, block)
    return state


def test_a_fresh_gate_knows_nothing() -> None:
    gate = TwoSample(margin=0.02)
    state = gate.start(prior_bad=5, prior_n=100)
    assert state.log_e_fail == 0
    assert state.log_e_pass == 0
    assert gate.verdict(state) is Verdict.INSUFFICIENT_DATA


def test_fail_evidence_is_the_mean_likelihood_ratio() -> None:
    gate = TwoSample(margin=0.02)
    state = gate.update(gate.start(5, 100), Block(canary_bad=4, canary_n=20, stable_bad=9, stable_n=180))
    n_c, n_s, x, t = 20, 180, 4, 13
    ratios = []
    for w in WORSE_ODDS:
        z = sum(comb(n_c, u) * comb(n_s, t - u) * w**u for u in range(min(n_c, t) + 1))
        ratios.append(w**x * comb(n_c + n_s, t) / z)
    assert state.log_e_fail == pytest.approx(log(sum(ratios) / len(ratios)), abs=1e-9)


def test_pass_evidence_follows_its_formula() -> None:
    """Worked out with a slow grid search for the projection instead of the product's bisection."""
    gate = TwoSample(margin=0.02)
    block = Block(canary_bad=1, canary_n=20, stable_bad=9, stable_n=180)
    state = gate.update(gate.start(5, 100), block)
    values = []
    for gain in GAINS:
        th_s, th_c = 0.05, 0.05 + 0.02 * (1 - gain)

        def slope(q: float, th_s: float = th_s, th_c: float = th_c) -> float:
            c = q + 0.02
            return 20 * (th_c - c) / (c * (1 - c)) + 180 * (th_s - q) / (q * (1 - q))

        q = min((0.02 + i * 1e-7 for i in range(400_000)), key=lambda q: abs(slope(q)))
        c = q + 0.02
        values.append(
            log(th_c / c) + 19 * log((1 - th_c) / (1 - c)) + 9 * log(th_s / q) + 171 * log((1 - th_s) / (1 - q))
        )
    expected = log(sum(exp(v) for v in values) / 3)
    assert state.log_e_pass == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("block", "times", "verdict"),
    [
        (Block(8, 20, 9, 180), 3, Verdict.FAIL),
        (Block(20, 20, 0, 180), 1, Verdict.FAIL),
        (Block(1, 20, 9, 180), 1, Verdict.INSUFFICIENT_DATA),
        (Block(1, 20, 9, 180), 60, Verdict.PASS),
        (Block(0, 2000, 0, 18000), 1, Verdict.PASS),
        (Block(0, 0, 9, 180), 50, Verdict.INSUFFICIENT_DATA),
        (Block(3, 20, 0, 0), 50, Verdict.INSUFFICIENT_DATA),
        (Block(20, 20, 180, 180), 50, Verdict.PASS),  # where all is lost, the canary is not the worse one
    ],
)
def test_verdicts(block: Block, times: int, verdict: Verdict) -> None:
    gate = TwoSample(margin=0.02, alpha=0.05, beta=0.05)
    assert gate.verdict(feed(gate, gate.start(5, 100), block, times)) is verdict


def test_a_crossing_stays_crossed_and_fail_wins() -> None:
    gate = TwoSample(margin=0.02)
    state = feed(gate, gate.start(5, 100), Block(1, 20, 9, 180), 60)
    assert gate.verdict(state) is Verdict.PASS
    state = feed(gate, state, Block(3, 20, 9, 180), 40)
    assert state.log_e_pass < log(20)
    assert gate.verdict(state) is Verdict.FAIL
    state = feed(gate, state, Block(0, 20, 19, 180), 200)
    assert state.log_e_fail < log(20)
    assert gate.verdict(state) is Verdict.FAIL


def test_history_weighs_at_most_a_hundred_trials() -> None:
    gate = TwoSample(margin=0.02)
    assert gate.start(500, 10_000) == gate.start(5, 100)
    assert gate.start(1, 50).good == 49


def test_without_history_the_first_block_only_teaches_the_rate() -> None:
    gate = TwoSample(margin=0.02)
    block = Block(1, 20, 9, 180)
    first = gate.update(gate.start(), block)
    assert first.log_e_pass == 0
    assert first.log_e_fail == gate.update(gate.start(5, 100), block).log_e_fail
    assert gate.update(first, block).log_e_pass > 0


def test_a_design_effect_divides_the_evidence() -> None:
    plain, careful = TwoSample(margin=0.02), TwoSample(margin=0.02, phi=2.0)
    block = Block(8, 20, 9, 180)
    one, two = plain.update(plain.start(5, 100), block), careful.update(careful.start(5, 100), block)
    assert two.fail == pytest.approx([v / 2 for v in one.fail])
    assert two.passing == pytest.approx([v / 2 for v in one.passing])


@pytest.mark.parametrize("settings", [{"margin": 0}, {"margin": 1}, {"alpha": 0}, {"beta": 1}, {"phi": 0.5}])
def test_refuses_settings_that_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TwoSample(**{"margin": 0.02, **settings})


@pytest.mark.parametrize("counts", [(-1, 5, 0, 5), (6, 5, 0, 5), (0, 5, 6, 5), (0, 5, -1, 5)])
def test_refuses_counts_that_cannot_be(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="bad outcomes"):
        Block(*counts)


def test_refuses_a_history_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="history"):
        TwoSample(margin=0.02).start(5, 4)
