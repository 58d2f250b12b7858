"""Durations, times, and the way between models and the API server's JSON."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from penstock.api.base import MESSAGE_LIMIT, Duration, PositiveDuration, Timestamp
from penstock.api.rollout import Rollout, Step
from penstock.api.status import GateStatus, LogEvidence, Phase, Status


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604800), ("1d2h3m4s", 93784)],
)
def test_a_duration_is_read_as_people_write_it(written: str, seconds: int) -> None:
    assert Duration.checked(written).seconds() == seconds


@pytest.mark.parametrize("written", ["", "10", "10 m", "1.5h", "-5m", "5min", "10ms", "1w", "9999999s", "1s" * 17])
def test_what_is_no_duration_is_refused_with_examples(written: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 10m, 1h30m or 7d"):
        Duration.checked(written)


@pytest.mark.parametrize("written", ["0s", "0h0m"])
def test_a_positive_duration_is_not_zero(written: str) -> None:
    with pytest.raises(ValueError, match="longer than zero"):
        PositiveDuration.checked(written)


def test_a_duration_of_a_model_is_parsed_and_written_back_as_it_was() -> None:
    step = Step.from_wire({"hold": "1h30m"})
    assert step.hold is not None
    assert step.hold.seconds() == 5400
    assert step.to_wire() == {"hold": "1h30m"}


@pytest.mark.parametrize(
    ("unix", "written"),
    [(0, "1970-01-01T00:00:00Z"), (1795470540, "2026-11-23T21:49:00Z"), (0.25, "1970-01-01T00:00:00.250Z")],
)
def test_a_time_survives_the_round_trip_to_the_millisecond(unix: float, written: str) -> None:
    moment = Timestamp.at(unix)
    assert moment == written
    assert moment.unix() == unix
    assert Timestamp.checked(written) == moment


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="with its zone"):
        Timestamp.checked("2026-11-23T21:49:00")


def test_an_empty_status_reads_as_one_that_knows_nothing() -> None:
    status = Status.from_wire(None)
    assert status == Status()
    assert status.to_wire() == {}
    assert (status.phase, status.conditions, status.rollout) == (None, (), None)


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    assert Status.from_wire({"phase": "Healthy", "mood": "good"}) == Status(phase=Phase.HEALTHY)


def test_models_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Status().seq = 1  # type: ignore[misc]


def test_the_field_named_pass_is_pass_on_the_wire() -> None:
    evidence = LogEvidence(fail=0.5, pass_=3.25)
    assert evidence.to_wire() == {"fail": 0.5, "pass": 3.25}
    assert LogEvidence.from_wire(evidence.to_wire()) == evidence


def test_wire_values_are_plain_types() -> None:
    wire = Status(phase=Phase.HEALTHY, rollout=None).to_wire()
    assert type(wire["phase"]) is str


def test_no_steps_and_steps_left_out_stay_apart() -> None:
    assert Rollout.from_wire({"steps": []}).to_wire()["steps"] == []
    assert "steps" not in Rollout.from_wire({}).to_wire()
    assert Rollout.from_wire(Rollout.from_wire({"steps": []}).to_wire()).steps == ()


def test_an_over_long_message_is_cut_so_that_the_write_succeeds() -> None:
    gate = GateStatus(name="errors", message="x" * (MESSAGE_LIMIT + 1))
    assert gate.message is not None
    assert len(gate.message) == MESSAGE_LIMIT
    assert gate.message.endswith("…")


def test_evidence_without_end_is_left_out_since_json_has_no_word_for_it() -> None:
    assert LogEvidence(fail=-math.inf, pass_=math.nan).to_wire() == {}
    assert LogEvidence(fail=0.0).to_wire() == {"fail": 0.0}
