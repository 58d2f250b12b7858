"""What must hold of evidence whatever the counters do."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.gates import Block, TwoSample, TwoSampleState
from penstock.core.gates.evidence import PodFact, Series, dump, load, start, update
from penstock.core.gates.frames import advance, read
from penstock.core.gates.plan import Comparison, Plan, Signal
from penstock.core.gates.samples import REQUESTS
from tests.unit.gates.fleet import ERRORS, START, Fleet, plan

TINY = 1e-9
GATE = TwoSample(margin=0.02)


@st.composite
def blocks(draw: st.DrawFn, room: int = 0) -> Block:
    """A block in which each arm has at least `room` good outcomes left."""
    n_c, n_s = draw(st.integers(1 + room, 400)), draw(st.integers(1 + room, 4000))
    return Block(draw(st.integers(0, n_c - room)), n_c, draw(st.integers(0, n_s - room)), n_s)


def after(*seen: Block) -> TwoSampleState:
    state = GATE.start(5, 100)
    for block in seen:
        state = GATE.update(state, block)
    return state


@given(blocks(room=1))
def test_one_more_bad_canary_outcome_never_speaks_for_the_canary(block: Block) -> None:
    worse = replace(block, canary_bad=block.canary_bad + 1)
    assert after(worse).log_e_fail >= after(block).log_e_fail - TINY
    assert after(worse).log_e_pass <= after(block).log_e_pass + TINY


@given(blocks(room=1))
def test_one_more_bad_stable_outcome_never_speaks_against_the_canary(block: Block) -> None:
    worse = replace(block, stable_bad=block.stable_bad + 1)
    assert after(worse).log_e_fail <= after(block).log_e_fail + TINY
    assert after(worse).log_e_pass >= after(block).log_e_pass - TINY


@given(blocks(), blocks())
def test_peaks_never_fall_and_bound_the_present(one: Block, two: Block) -> None:
    first, second = after(one), after(one, two)
    assert second.peak_fail >= max(first.peak_fail, second.log_e_fail) - TINY
    assert second.peak_pass >= max(first.peak_pass, second.log_e_pass) - TINY


@given(blocks(), st.floats(1, 50))
def test_a_design_effect_only_takes_evidence_away_from_each_alternative(block: Block, phi: float) -> None:
    plain, careful = after(block), TwoSample(0.02, phi=phi).update(TwoSample(0.02, phi=phi).start(5, 100), block)
    assert all(abs(c) <= abs(p) + TINY for c, p in zip(careful.fail, plain.fail, strict=True))


@given(st.lists(st.sampled_from(["accuracy", "errors", "latency"]), min_size=1, max_size=16))
def test_shares_of_alpha_sum_to_one(signals: list[Signal]) -> None:
    gates = tuple(Comparison(f"g{i}", s, 1.2 if s == "latency" else 0.02) for i, s in enumerate(signals))
    weights = Plan("s", "c", "r", gates, 0.0).weights
    assert abs(sum(weights) - 1) < TINY
    assert min(weights) > 0


lives = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans(), st.booleans()), min_size=1, max_size=30
)


@given(lives)
def test_counters_never_give_negative_or_invented_counts(life: list[tuple[int, int, bool, bool]]) -> None:
    """Each entry: good and bad requests, maybe a scrape, maybe a restart (which loses what is not scraped)."""
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    pod.scrape(START)
    served = failed = 0
    for i, (good, bad, scraped, restarts) in enumerate(life):
        pod.serve(good + bad, bad=bad)
        served, failed = served + good + bad, failed + bad
        if scraped:
            pod.scrape(START + 15 * (i + 1))
        if restarts:
            pod.restart()
    cursor, n, bad_n = None, 0, 0
    for frame in read(plan(), fleet.series(), {}, fleet.facts(), ()).frames:
        step = advance(plan(), cursor, frame, fleet.facts()["s-0"], ())
        assert 0 <= step.bad <= step.n
        cursor, n, bad_n = step.cursor, n + step.n, bad_n + step.bad
    assert n <= served
    assert bad_n <= failed


@given(lives)
def test_without_restarts_nothing_is_lost(life: list[tuple[int, int, bool, bool]]) -> None:
    fleet = Fleet()
    pod = fleet.add("s-0", "s1")
    pod.scrape(START)
    for i, (good, bad, scraped, _) in enumerate(life):
        pod.serve(good + bad, bad=bad)
        if scraped or i == len(life) - 1:
            pod.scrape(START + 15 * (i + 1))
    cursor, n, bad_n = None, 0, 0
    for frame in read(plan(), fleet.series(), {}, fleet.facts(), ()).frames:
        step = advance(plan(), cursor, frame, fleet.facts()["s-0"], ())
        cursor, n, bad_n = step.cursor, n + step.n, bad_n + step.bad
    assert (n, bad_n) == (sum(g + b for g, b, _, _ in life), sum(b for _, b, _, _ in life))


values = st.one_of(st.integers(0, 10**12), st.sampled_from([float("nan"), float("inf"), 0.5, -3.0]))


@st.composite
def noise(draw: st.DrawFn) -> list[Series]:
    """Series as a broken source might give them."""
    found = []
    for pod in ("s-0", "s-1", "c-0"):
        for outcome in draw(st.lists(st.sampled_from(["ok", "timeout", ""]), max_size=3)):
            times = sorted(draw(st.lists(st.floats(START, START + 10**5), max_size=6, unique=True)))
            points = tuple((t, float(draw(values))) for t in times)
            revision = draw(st.sampled_from(["s1", "c1", "other"]))
            found.append(Series(pod, revision, REQUESTS, (("outcome", outcome),), points))
    return found


@settings(max_examples=200)
@given(noise(), noise(), st.booleans())
def test_nothing_a_source_says_breaks_the_update(first: list[Series], second: list[Series], known: bool) -> None:
    facts = {p: PodFact("c1" if p == "c-0" else "s1", START, START) for p in ("s-0", "s-1", "c-0")} if known else {}
    chosen = plan(ERRORS)
    evidence = start(chosen)
    for series in (first, second):
        evidence = update(chosen, evidence, series, facts, START + 10**5)
        assert load(json.loads(json.dumps(dump(evidence)))) == evidence
        assert 0 <= evidence.share[0] <= evidence.share[1]
        for record in evidence.gates:
            assert 0 <= record.canary_bad <= record.canary_n
            assert 0 <= record.stable_bad <= record.stable_n
