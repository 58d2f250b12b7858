"""The guard on the observed traffic share."""

from __future__ import annotations

import random

import pytest

from penstock.core.gates.evidence import share_consistent


@pytest.mark.parametrize(
    ("canary_n", "total_n", "weight", "fits"),
    [
        (0, 0, 0.05, None),
        (1, 10, 0.05, None),
        (50, 1000, 0.05, True),
        (5, 100, 0.05, True),
        (0, 1000, 0.05, False),
        (500, 1000, 0.05, False),
        (54_000, 1_000_000, 0.05, True),
        (60_000, 1_000_000, 0.05, False),
        (500, 1000, 0.5, True),
        (30, 30, 0.5, False),
        (0, 1000, 0.0, True),
        (400, 1000, 0.0, False),
        (1000, 1000, 1.0, True),
        (900, 1000, 1.0, False),
        (3, 3, 1.0, None),
    ],
)
def test_table(canary_n: int, total_n: int, weight: float, fits: bool | None) -> None:
    assert share_consistent(canary_n, total_n, weight) is fits


def test_a_router_that_keeps_to_its_weight_is_never_accused() -> None:
    rng = random.Random(7)
    for weight in (0.01, 0.05, 0.25, 0.5):
        for _ in range(60):
            canary = 0
            for total in range(1, 1001):
                canary += rng.random() < weight
                if total % 20 == 0:
                    assert share_consistent(canary, total, weight) is not False


@pytest.mark.parametrize(("counts", "weight"), [((5, 4), 0.1), ((-1, 4), 0.1), ((1, 4), 5)])
def test_refuses_what_cannot_be(counts: tuple[int, int], weight: float) -> None:
    with pytest.raises(ValueError, match="need"):
        share_consistent(*counts, weight)
