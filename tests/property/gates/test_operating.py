"""Operating characteristics by simulation, seeded: false alarms stay rare, real drops are found in few samples."""

from __future__ import annotations

import random
import time
from statistics import median

import pytest

from penstock.core.gates import Block, LatencyBlock, LatencyShift, TwoSample, Verdict


def bad_of(rng: random.Random, n: int, rate: float) -> int:
    return sum(rng.random() < rate for _ in range(n))


def race(rng: random.Random, gate: TwoSample, canary: float, stable: float, labels: int) -> tuple[Verdict, int]:
    """Blocks of 5 canary and 45 stable labels until a verdict or so many canary labels."""
    state, used = gate.start(100 * stable, 100), 0
    while used < labels:
        used += 5
        state = gate.update(state, Block(bad_of(rng, 5, canary), 5, bad_of(rng, 45, stable), 45))
        if gate.verdict(state) is not Verdict.INSUFFICIENT_DATA:
            break
    return gate.verdict(state), used


def test_an_equal_canary_is_rarely_failed_however_long_one_looks() -> None:
    rng, gate = random.Random(11), TwoSample(margin=0.5)
    fails = 0
    for _ in range(400):
        state, base = gate.start(5, 100), rng.uniform(0.01, 0.3)
        for _ in range(40):
            rate = min(1.0, base * rng.choice((0.5, 1, 3)))
            n_c = rng.randint(1, 12)
            state = gate.update(state, Block(bad_of(rng, n_c, rate), n_c, bad_of(rng, 45, rate), 45))
        fails += gate.verdict(state) is Verdict.FAIL
    assert fails <= 20


def test_a_canary_worse_by_the_margin_is_rarely_passed() -> None:
    rng, gate = random.Random(12), TwoSample(margin=0.02)
    passed = sum(race(rng, gate, 0.07, 0.05, 1000)[0] is Verdict.PASS for _ in range(120))
    assert passed <= 6


def test_a_ten_point_drop_is_found_in_some_65_canary_labels() -> None:
    rng, gate = random.Random(13), TwoSample(margin=0.02)
    ends = [race(rng, gate, 0.15, 0.05, 600) for _ in range(300)]
    assert {verdict for verdict, _ in ends} == {Verdict.FAIL}
    used = sorted(n for _, n in ends)
    assert median(used) <= 70
    assert used[int(0.99 * len(used))] <= 275


def test_thirty_percent_slower_is_found_in_some_150_requests() -> None:
    rng = random.Random(14)
    gate = LatencyShift((True, True))
    used = []
    for _ in range(60):
        state, n = gate.start(), 0
        while gate.verdict(state) is Verdict.INSUFFICIENT_DATA and n < 2000:
            n += 10
            canary = [1.3 * rng.lognormvariate(0, 0.5) for _ in range(10)]
            stable = [rng.lognormvariate(0, 0.5) for _ in range(90)]
            bounds = (1.0, 1.9)
            state = gate.update(
                state,
                LatencyBlock(
                    10,
                    90,
                    tuple(sum(v > b for v in stable) for b in bounds),
                    tuple(sum(v > 1.1 * b for v in canary) for b in bounds),
                    tuple(sum(v > 1.21 * b for v in canary) for b in bounds),
                ),
            )
        assert gate.verdict(state) is Verdict.FAIL
        used.append(n)
    assert median(used) <= 150 * 1.2


@pytest.mark.parametrize("scale", [1, 60, 6000])
def test_a_block_takes_about_a_millisecond_whatever_its_size(scale: int) -> None:
    """Best of many, so that a busy machine does not matter; the bar is 1 ms typical, ten times that is a defect."""
    gate, shift = TwoSample(margin=0.02), LatencyShift((True, True, True))
    state, slow = gate.start(5, 100), shift.start()
    block = Block(scale, 20 * scale, 9 * scale, 180 * scale)
    above = (90 * scale, 18 * scale, 2 * scale)
    latency = LatencyBlock(20 * scale, 180 * scale, above, (10 * scale, 2 * scale, 0), (6 * scale, scale, 0))
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        gate.update(state, block)
        shift.update(slow, latency)
        best = min(best, time.perf_counter() - began)
    assert best < 0.01
