"""Feedback end to end: predictions of real servers, labels to any replica, counts in the metrics."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from penstock_runtime.server.feedback.ids import Issuer
from penstock_runtime.server.feedback.keys import Keys
from tests.unit.runtime.conftest import Start
from tests.unit.runtime.process import SETOSA, VIRGINICA, Server, iris_request
from tests.unit.runtime.scrape import families, sample

NONE_REJECTED = {"unmatched": 0, "duplicate": 0, "expired": 0}


@pytest.fixture
def key_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "current").write_bytes(os.urandom(32))
    return folder


def predict(server: Server, *rows: list[float]) -> str:
    return server.infer(iris_request(*rows)).headers["penstock-prediction-id"]


def feedback(server: Server, **labels: str) -> dict[str, float]:
    """Return penstock_feedback_total by result, summed over what matches `labels`."""
    found: dict[str, float] = {"correct": 0, "incorrect": 0}
    for item in families(server.metrics_text())["penstock_feedback"].samples:
        if labels.items() <= item.labels.items():
            found[item.labels["result"]] += item.value
    return found


def test_labels_are_compared_with_what_was_predicted(start_server: Start) -> None:
    server = start_server("iris", PENSTOCK_REVISION="rev").ready()
    items = [
        {"id": predict(server, SETOSA), "label": 0},
        {"id": predict(server, SETOSA), "label": 2},
        {"id": predict(server, VIRGINICA), "correct": True},
        {"id": predict(server, VIRGINICA), "correct": False},
    ]
    assert server.feedback(items).json == {"accepted": 4, "rejected": NONE_REJECTED}
    assert feedback(server, revision="rev", cohort="none") == {"correct": 2, "incorrect": 2}
    assert sample(server, "penstock_feedback_class_total", label="2", predicted="0") == 1


def test_a_request_of_several_rows_takes_a_list_with_gaps(start_server: Start) -> None:
    server = start_server("iris").ready()
    several = predict(server, SETOSA, VIRGINICA, SETOSA)
    wrong_length = [{"id": several, "label": 0}, {"id": several, "label": [0, 2]}]
    assert server.feedback(wrong_length).json["rejected"]["unmatched"] == 2
    assert server.feedback([{"id": several, "label": [0, None, 2]}]).json["accepted"] == 1
    assert feedback(server) == {"correct": 1, "incorrect": 1}


def test_beyond_32_rows_the_id_knows_no_predictions_but_takes_judgements(start_server: Start) -> None:
    server = start_server("iris").ready()
    many = predict(server, *[SETOSA] * 33)
    assert server.feedback([{"id": many, "label": [0] * 33}]).json["rejected"]["unmatched"] == 1
    assert server.feedback([{"id": many, "correct": [True] * 33}]).json["accepted"] == 1
    assert feedback(server) == {"correct": 33, "incorrect": 0}


def test_duplicate_forged_and_late_feedback_is_counted_by_reason(start_server: Start, key_dir: Path) -> None:
    server = start_server("iris", "--feedback-key-dir", str(key_dir), PENSTOCK_FEEDBACK='{"window":"1h"}').ready()
    issuer = Issuer(Keys(key_dir), "none", "none", "m")
    late = issuer.issue(time.time() - 3700, 1, [0]).decode()
    future = issuer.issue(time.time() + 3600, 1, [0]).decode()
    good = predict(server, SETOSA)
    batch = [{"id": item, "label": 0} for item in (good, good, late, future, "forged", good[:-4] + "AAAA")]
    assert server.feedback(batch).json == {
        "accepted": 1,
        "rejected": {"unmatched": 3, "duplicate": 1, "expired": 1},
    }
    assert server.feedback([{"id": good, "label": 1}]).json["rejected"]["duplicate"] == 1
    assert feedback(server) == {"correct": 1, "incorrect": 0}
    for reason, count in (("unmatched", 3), ("duplicate", 2), ("expired", 1)):
        assert sample(server, "penstock_feedback_rejected_total", reason=reason) == count


def test_any_replica_of_any_revision_counts_for_the_one_that_predicted(start_server: Start, key_dir: Path) -> None:
    keys = ("--feedback-key-dir", str(key_dir))
    stable = start_server("iris", *keys, PENSTOCK_REVISION="stable").ready()
    canary = start_server("iris", *keys, PENSTOCK_REVISION="canary").ready()
    assert stable.feedback([{"id": predict(canary, SETOSA), "label": 1}]).json["accepted"] == 1
    assert feedback(stable, revision="canary") == {"correct": 0, "incorrect": 1}
    assert feedback(stable, revision="stable") == {"correct": 0, "incorrect": 0}
    assert feedback(canary) == {"correct": 0, "incorrect": 0}


def test_regression_counts_errors_and_what_is_within_the_tolerance(start_server: Start) -> None:
    server = start_server("regression", PENSTOCK_FEEDBACK='{"tolerance":0.5}').ready()
    reply = server.infer(iris_request(SETOSA))
    value = reply.json["outputs"][0]["data"][0]
    prediction = reply.headers["penstock-prediction-id"]
    items = [
        {"id": prediction, "label": value + 0.25},
        {"id": predict(server, SETOSA), "label": value - 2},
        {"id": predict(server, SETOSA), "error": -0.25},
    ]
    assert server.feedback(items).json["accepted"] == 3
    assert feedback(server) == {"correct": 2, "incorrect": 1}
    assert sample(server, "penstock_feedback_error_count") == 3
    assert sample(server, "penstock_feedback_error_sum") == pytest.approx(2.5, abs=1e-5)
    assert sample(server, "penstock_feedback_error_squared_sum") == pytest.approx(4.125, abs=1e-5)


MALFORMED: list[object] = [
    b"{",
    {},
    [1],
    [{"id": "a"}],
    [{"label": 1}],
    [{"id": 1, "label": 1}],
    [{"id": "a", "label": 1, "correct": True}],
]


@pytest.mark.parametrize("body", MALFORMED)
def test_a_malformed_batch_is_refused_as_a_whole(iris: Server, body: object) -> None:
    reply = iris.feedback(body)
    assert reply.status == 400
    assert list(reply.json) == ["error"]


def test_values_that_fit_no_prediction_are_unmatched(iris: Server) -> None:
    prediction = predict(iris, SETOSA)
    values: list[dict[str, object]] = [
        {"label": {}},
        {"label": None},
        {"label": []},
        {"correct": 1},
        {"error": "x"},
        {"error": True},
    ]
    batch = [{"id": prediction, **value} for value in values]
    assert iris.feedback(batch).json == {"accepted": 0, "rejected": {**NONE_REJECTED, "unmatched": 6}}
    assert iris.feedback([{"id": prediction, "label": 0}]).json["accepted"] == 1


def test_a_batch_of_ten_thousand_is_taken_while_others_are_served_and_one_more_is_not(
    start_server: Start, key_dir: Path
) -> None:
    server = start_server("iris", "--feedback-key-dir", str(key_dir)).ready()
    issuer = Issuer(Keys(key_dir), "none", "none", "m")
    batch = [{"id": issuer.issue(time.time(), 1, [n % 3]).decode(), "label": 0} for n in range(10_000)]
    assert server.feedback([*batch, batch[0]]).status == 413
    assert feedback(server) == {"correct": 0, "incorrect": 0}
    assert server.feedback(batch).json["accepted"] == 10_000
    assert feedback(server) == {"correct": 3334, "incorrect": 6666}
    assert server.feedback(batch).json["rejected"]["duplicate"] == 10_000


def test_a_new_cohort_is_taken_up_without_a_restart(start_server: Start, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    publish(config, "one", "canary-aaaaa")
    server = start_server("iris", "--config-dir", str(config), PENSTOCK_REVISION="stable").ready()
    first = predict(server, SETOSA)
    publish(config, "two", "canary-bbbbb")
    assert server.wait_log("cohort changed")["cohort"] == "canary-bbbbb"
    second = predict(server, SETOSA)
    assert server.feedback([{"id": item, "label": 0} for item in (first, second)]).json["accepted"] == 2
    for cohort in ("canary-aaaaa", "canary-bbbbb"):
        assert feedback(server, revision="stable", cohort=cohort) == {"correct": 1, "incorrect": 0}
    shown = families(server.metrics_text())["penstock_feedback"].samples
    assert ("canary", "canary-bbbbb") in {(s.labels["revision"], s.labels["cohort"]) for s in shown}
    (config / "..data").unlink()
    assert server.wait_log("cohort changed")["cohort"] == "none"


def publish(folder: Path, version: str, cohort: str) -> None:
    """Change the file as the kubelet does: a link to a link that is swapped."""
    (folder / f"..{version}").mkdir()
    (folder / f"..{version}" / "cohort").write_text(f"{cohort}\n")
    (folder / "..next").symlink_to(f"..{version}")
    (folder / "..next").rename(folder / "..data")
    if not (folder / "cohort").is_symlink():
        (folder / "cohort").symlink_to("..data/cohort")


def test_keys_are_read_again_when_they_rotate(start_server: Start, key_dir: Path) -> None:
    server = start_server("iris", "--feedback-key-dir", str(key_dir)).ready()
    before = predict(server, SETOSA)
    old = (key_dir / "current").read_bytes()
    (key_dir / "previous").write_bytes(old)
    (key_dir / "current").write_bytes(os.urandom(32))
    rotated = Issuer(Keys(key_dir), "none", "none", "m")
    end = time.monotonic() + 20
    while True:
        fresh = rotated.issue(time.time(), 1, [0]).decode()
        if server.feedback([{"id": fresh, "label": 0}]).json["accepted"]:
            break
        assert time.monotonic() < end, "the new key was not taken up"
    assert server.feedback([{"id": before, "label": 0}]).json["accepted"] == 1


def test_the_operators_json_is_understood(start_server: Start) -> None:
    settings = {"output": "probabilities", "decision": "argmax", "window": "7d"}
    server = start_server("iris", PENSTOCK_FEEDBACK=json.dumps(settings)).ready()
    assert server.loaded["decision_output"] == "probabilities"
    assert server.feedback([{"id": predict(server, VIRGINICA), "label": 2}]).json["accepted"] == 1
    assert feedback(server) == {"correct": 1, "incorrect": 0}


def test_the_feedback_configuration_changes_without_a_restart(start_server: Start, tmp_path: Path) -> None:
    server = start_server("iris", "--config-dir", str(tmp_path)).ready()
    assert server.loaded["decision_output"] == "label"
    setting = tmp_path / "feedback"
    setting.write_text('{"output":"probabilities","window":"1h"}')
    assert server.wait_log("feedback changed")["decision_output"] == "probabilities"
    assert server.feedback([{"id": predict(server, VIRGINICA), "label": 2}]).json["accepted"] == 1
    setting.write_text('{"output":"nothing"}')
    assert "'nothing' is no output of the model" in server.wait_log("labels cannot be compared")["error"]
    undecided = predict(server, VIRGINICA)
    assert server.feedback([{"id": undecided, "label": 2}]).json["rejected"]["unmatched"] == 1
    assert server.feedback([{"id": undecided, "correct": True}]).json["accepted"] == 1
    setting.write_text("{")
    server.wait_log("the file 'feedback' is malformed and ignored")
    setting.write_text("{}")
    server.wait_log("feedback changed")
    assert server.feedback([{"id": predict(server, SETOSA), "label": 0}]).json["accepted"] == 1
    assert feedback(server) == {"correct": 3, "incorrect": 0}
