"""From runs to medians, ratios and verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.server.cases import ALONE, BARE, BEST_PEER, KSERVE, MLSERVER, PENSTOCK, Bar, Case
from bench.server.stats import Cell, Run, best_peer, cell_of, cells_of, judge, judge_least, judge_most

CASE = Case("c", "a case", "iris", "json", 64, (Bar(BEST_PEER, 5.0), Bar(BARE, 0.8)), tail=True)
RUN = Run("c", PENSTOCK, rate=100.0, p50=0.01, p99=0.02, cpu=0.001, busy=0.9, foreign=0.0)


def cell(rate: float, **more: float) -> Cell:
    return Cell(rate=rate, least=rate, most=rate, runs=3, **more)  # type: ignore[arg-type]


def test_a_cell_is_the_median_with_its_spread() -> None:
    runs = [replace(RUN, rate=rate, p99=rate / 1e3) for rate in (120.0, 100.0, 130.0)]
    got = cell_of(runs)
    assert (got.rate, got.least, got.most, got.p99, got.runs) == (120.0, 100.0, 130.0, 0.12, 3)
    assert got.counts


def test_one_noisy_round_of_three_does_not_make_a_cell_noisy() -> None:
    assert cell_of([replace(RUN, foreign=foreign) for foreign in (0.9, 0.01, 0.02)]).foreign == 0.02


def test_an_error_in_any_run_makes_the_cell_void() -> None:
    got = cell_of([RUN, replace(RUN, errors="3 answers were no 2xx"), replace(RUN, errors="3 answers were no 2xx")])
    assert got.void == "3 answers were no 2xx"
    assert not got.counts


def test_cells_by_case_and_server_with_the_reason_of_those_that_are_missing() -> None:
    cells = cells_of([RUN], {("c", MLSERVER): "not served"}, [CASE])
    assert cells["c"][PENSTOCK].rate == 100.0
    assert cells["c"][MLSERVER].skipped == "not served"
    assert cells["c"][KSERVE].skipped == "not measured"


def test_the_best_peer_is_the_quickest_that_counts() -> None:
    cells = {MLSERVER: cell(200.0), KSERVE: cell(100.0), PENSTOCK: cell(900.0)}
    assert best_peer(cells) == MLSERVER
    assert best_peer({**cells, MLSERVER: replace(cell(200.0), void="broken")}) == KSERVE
    assert best_peer({PENSTOCK: cell(1.0)}) is None


@pytest.mark.parametrize(
    ("ours", "verdicts"),
    [(1000.0, ["pass", "pass", "pass"]), (999.5, ["pass", "pass", "pass"]), (990.0, ["miss", "miss", "pass"])],
)
def test_bars_are_ratios_of_rates_as_they_are_shown(ours: float, verdicts: list[str]) -> None:
    cells = {PENSTOCK: cell(ours, p99=0.01), MLSERVER: cell(200.0, p50=0.01), BARE: cell(1250.0)}
    judged = judge(CASE, cells)
    assert [each.verdict for each in judged] == verdicts
    assert judged[0].text == ">= 5 x the best peer"
    assert judged[0].reached == f"{ours / 200:.2f} x (MLServer)"


def test_the_tail_is_compared_with_the_best_peers_median() -> None:
    cells = {PENSTOCK: cell(2000.0, p99=0.0101), MLSERVER: cell(200.0, p50=0.01), BARE: cell(100.0)}
    assert judge(CASE, cells)[2].verdict == "miss"


def test_no_verdict_where_others_had_the_core() -> None:
    cells = {PENSTOCK: cell(2000.0), MLSERVER: cell(200.0, foreign=0.3), BARE: cell(100.0)}
    assert [each.verdict for each in judge(CASE, cells)] == ["noisy", "pass", "noisy"]


def test_void_and_missing_cells_are_never_compared() -> None:
    void = {PENSTOCK: replace(cell(1.0), void="broken"), MLSERVER: cell(1.0), BARE: cell(1.0)}
    assert [each.verdict for each in judge(CASE, void)] == ["void", "void", "void"]
    missing = {PENSTOCK: Cell(skipped="not served"), MLSERVER: cell(1.0), BARE: cell(1.0)}
    assert {each.verdict for each in judge(CASE, missing)} == {"not measured"}


def test_a_bar_against_onnx_runtime_alone() -> None:
    case = Case("c", "", "conv", "binary", 16, (Bar(ALONE, 0.9),), servers=(PENSTOCK, ALONE))
    (judged,) = judge(case, {PENSTOCK: cell(95.0), ALONE: cell(100.0)})
    assert (judged.text, judged.reached, judged.verdict) == (">= 0.9 x ORT alone", "0.95 x", "pass")


def test_limits() -> None:
    assert judge_least("", 0.9, 0.9, "").verdict == "pass"
    assert judge_least("", 0.89, 0.9, "").verdict == "miss"
    assert judge_most("", 0.8, 0.8, "").verdict == "pass"
    assert judge_most("", 0.81, 0.8, "").verdict == "miss"
    assert judge_most("", 0.1, 0.8, "", noisy=True).verdict == "noisy"
