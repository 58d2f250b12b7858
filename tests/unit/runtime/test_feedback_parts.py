"""The parts of feedback by themselves: the ledger, the judge and the tally."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.protocol.schema import ModelSchema, TensorSpec
from penstock_runtime.server.feedback.judge import Judge, Verdict
from penstock_runtime.server.feedback.ledger import Ledger
from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.settings import Feedback, SettingsError
from tests.unit.runtime.scrape import families

NOW = 1_800_000_000.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20_000)), max_size=60))
def test_the_ledger_is_a_set(pairs: list[tuple[int, int]]) -> None:
    ledger, seen = Ledger(), set()
    for origin, counter in pairs:
        assert ledger.has(origin, counter) == ((origin, counter) in seen)
        ledger.add(origin, counter, int(NOW), NOW, 100)
        seen.add((origin, counter))
    assert all(ledger.has(*pair) for pair in seen)


def test_what_is_older_than_the_window_expires_and_is_forgotten() -> None:
    ledger = Ledger()
    ledger.add(1, 1, int(NOW), NOW, 100)
    assert not ledger.is_expired(int(NOW), NOW + 100, 100)
    assert ledger.is_expired(int(NOW), NOW + 101, 100)
    ledger.add(2, 1, int(NOW) + 200, NOW + 200, 100)
    assert not ledger.has(1, 1)
    assert ledger.is_expired(int(NOW), NOW + 200, 1000), "a longer window brings nothing back"
    assert not ledger.is_expired(int(NOW) + 150, NOW + 200, 1000)


def test_a_full_ledger_expires_the_oldest_rather_than_count_twice() -> None:
    ledger = Ledger(max_chunks=4)
    for origin in range(10):
        ledger.add(origin, 0, int(NOW) + origin, NOW + origin, 1e6)
    for origin in range(10):
        known = ledger.has(origin, 0)
        assert known != ledger.is_expired(int(NOW) + origin, NOW + 10, 1e6)
        assert known == (origin >= 6)


LABEL = TensorSpec("label", "INT64", (-1,))
SCORES = TensorSpec("scores", "FP32", (-1, 3))
VALUE = TensorSpec("value", "FP32", (-1, 1))


@pytest.mark.parametrize(
    ("outputs", "feedback", "name", "array", "expected"),
    [
        ((SCORES, LABEL), Feedback(), "label", np.array([2, 0]), [2, 0]),
        ((SCORES, LABEL), Feedback(output="scores"), "scores", np.array([[0.1, 0.7, 0.2]]), [1]),
        ((SCORES,), Feedback(output="label"), "scores", np.array([[0.1, 0.7, 0.2]]), [1]),
        ((SCORES, TensorSpec("kind", "BYTES", (-1,))), Feedback(), "kind", np.array(["a"], object), ["a"]),
        ((VALUE,), Feedback(decision="threshold", threshold=0.8), "value", np.array([[0.8], [0.79]]), [1, 0]),
        ((SCORES,), Feedback(decision="threshold"), "scores", np.array([[0.4, 0.6]]), [1]),
        ((SCORES,), Feedback(decision="threshold"), "scores", np.array([[0.1, 0.6, 0.3]]), []),
        ((VALUE,), Feedback(tolerance=0.1), "value", np.array([[1.5], [2.5]]), [1.5, 2.5]),
        ((VALUE,), Feedback(), "value", np.array([[np.nan]]), []),
        ((VALUE,), Feedback(), "value", np.array([[1.0], [2.0]]), [1.0, 2.0]),
        ((TensorSpec("yes", "BOOL", (-1,)),), Feedback(), "yes", np.array([True, False]), [1, 0]),
        ((LABEL,), Feedback(), "label", np.array([[1, 2], [3, 4]]), []),
    ],
)
def test_decisions(
    outputs: tuple[TensorSpec, ...], feedback: Feedback, name: str, array: Any, expected: list[Any]
) -> None:
    judge = Judge(ModelSchema((), outputs), feedback)
    assert judge.output == name
    assert list(judge.decide(array, array.shape[0])) == expected


def test_an_output_that_is_not_one_row_a_row_gives_no_decision() -> None:
    judge = Judge(ModelSchema((), (VALUE,)), Feedback())
    assert list(judge.decide(np.array([[1.0], [2.0]]), 4)) == []
    assert list(judge.decide(np.array(1.5), 1)) == [1.5]


def test_an_unknown_output_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="'score' is no output of the model; it gives scores, label"):
        Judge(ModelSchema((), (SCORES, LABEL)), Feedback(output="score"))


@pytest.mark.parametrize(
    ("prediction", "label", "correct"),
    [(1, 1, True), (1, 1.0, True), (1, "1", True), (1, True, True), (0, False, True), (1, 2, False),
     (1, 1.5, False), (1, "one", False), ("a", "a", True), ("a", "b", False), ("7", 7, True)],
)  # fmt: skip
def test_labels_against_classes(prediction: Any, label: Any, correct: bool) -> None:
    verdict = Judge(ModelSchema((), ()), Feedback()).compare(prediction, label)
    assert verdict is not None
    assert (verdict.correct, verdict.error) == (correct, None)


@pytest.mark.parametrize(
    ("label", "expected"),
    [(2.0, Verdict(True, 0.5, None)), (3, Verdict(False, 1.5, None)), ("2.0", None), (True, None), (1e400, None)],
)
def test_labels_against_numbers(label: Any, expected: Verdict | None) -> None:
    assert Judge(ModelSchema((), (VALUE,)), Feedback(tolerance=0.5)).compare(1.5, label) == expected


def counts(tally: Tally) -> dict[tuple[str, str, str], float]:
    found = families("\n".join(tally.lines()) + "\n")["penstock_feedback"].samples
    return {(s.labels["revision"], s.labels["cohort"], s.labels["result"]): s.value for s in found}


RIGHT, WRONG = Verdict(True, None, "1"), Verdict(False, None, "1")


def test_feedback_counts_for_the_revision_and_cohort_that_predicted() -> None:
    tally = Tally("m", "stable", "canary-abcde")
    tally.count("stable", "canary-abcde", 10, "1", RIGHT)
    tally.count("canary", "canary-abcde", 10, "0", WRONG)
    tally.count("stable", "none", 5, "1", RIGHT)
    assert {key: value for key, value in counts(tally).items() if value} == {
        ("stable", "canary-abcde", "correct"): 1,
        ("canary", "canary-abcde", "incorrect"): 1,
        ("stable", "none", "correct"): 1,
    }


def test_a_rollout_shows_both_arms_at_zero_before_the_first_label() -> None:
    tally = Tally("m", "stable", "none")
    tally.start_cohort("canary-abcde", 10)
    shown = counts(tally)
    for revision in ("stable", "canary"):
        for result in ("correct", "incorrect"):
            assert shown[revision, "canary-abcde", result] == 0


def test_the_three_newest_cohorts_are_kept_and_late_labels_do_not_drive_them_out() -> None:
    tally = Tally("m", "r", "none")
    for number in range(1, 6):
        tally.count("r", f"c{number}", number * 100, "1", RIGHT)
    tally.count("r", "c1", 100, "1", RIGHT)
    assert {cohort for _, cohort, _ in counts(tally)} == {"none", "c3", "c4", "c5"}
    assert counts(tally)["r", "none", "correct"] == 1


def test_foreign_revisions_are_bounded_and_the_own_one_stays() -> None:
    tally = Tally("m", "own", "none")
    for number in range(30):
        tally.count(f"r{number}", "none", 1, "1", RIGHT)
    revisions = {revision for revision, _, _ in counts(tally)}
    assert revisions == {"own", *(f"r{number}" for number in range(22, 30))}


def test_class_pairs_are_bounded() -> None:
    tally = Tally("m", "r", "none")
    for number in range(100):
        tally.count("r", "none", 1, str(number), Verdict(False, None, str(number + 1)))
    found = families("\n".join(tally.lines()) + "\n")["penstock_feedback_class"].samples
    assert sum(s.value for s in found) == 100
    assert len({s.labels["label"] for s in found} | {s.labels["predicted"] for s in found}) == 21


def test_errors_are_summed() -> None:
    tally = Tally("m", "r", "none")
    tally.count("r", "none", 1, None, Verdict(True, 0.5, None))
    tally.count("r", "none", 1, None, Verdict(None, 2.0, None))
    found = families("\n".join(tally.lines()) + "\n")
    values = [found[f"penstock_feedback_error_{name}"].samples[0].value for name in ("sum", "squared_sum", "count")]
    assert values == [2.5, 4.25, 2]
    assert counts(tally)["r", "none", "correct"] == 1
