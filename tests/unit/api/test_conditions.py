"""How a list of conditions changes."""

from __future__ import annotations

from penstock.api.base import Timestamp
from penstock.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    drop_condition,
    find_condition,
    set_condition,
)

EARLY, LATE = Timestamp.at(1000), Timestamp.at(2000)


def ready(status: ConditionStatus, at: Timestamp, reason: str = "Because") -> Condition:
    return Condition(type=ConditionType.READY, status=status, reason=reason, last_transition_time=at)


def test_a_new_condition_is_added_at_the_end() -> None:
    other = Condition(type=ConditionType.AVAILABLE, status=ConditionStatus.TRUE)
    after = set_condition((other,), ready(ConditionStatus.TRUE, EARLY))
    assert [c.type for c in after] == ["Available", "Ready"]


def test_a_flipped_status_moves_the_transition_time() -> None:
    before = (ready(ConditionStatus.TRUE, EARLY),)
    after = set_condition(before, ready(ConditionStatus.FALSE, LATE))
    assert after == (ready(ConditionStatus.FALSE, LATE),)


def test_a_new_reason_alone_does_not_move_the_transition_time() -> None:
    before = (ready(ConditionStatus.TRUE, EARLY, "Healthy"),)
    (after,) = set_condition(before, ready(ConditionStatus.TRUE, LATE, "Watching"))
    assert (after.reason, after.last_transition_time) == ("Watching", EARLY)


def test_a_status_without_a_time_takes_the_new_one() -> None:
    before = (Condition(type=ConditionType.READY, status=ConditionStatus.TRUE),)
    (after,) = set_condition(before, ready(ConditionStatus.TRUE, LATE))
    assert after.last_transition_time == LATE


def test_setting_what_is_set_already_changes_nothing() -> None:
    before = (ready(ConditionStatus.TRUE, EARLY),)
    assert set_condition(before, ready(ConditionStatus.TRUE, LATE)) == before


def test_a_condition_keeps_its_place() -> None:
    other = Condition(type=ConditionType.AVAILABLE, status=ConditionStatus.TRUE)
    after = set_condition((ready(ConditionStatus.TRUE, EARLY), other), ready(ConditionStatus.FALSE, LATE))
    assert [c.type for c in after] == ["Ready", "Available"]


def test_a_dropped_condition_is_gone_and_the_others_stay() -> None:
    other = Condition(type=ConditionType.AVAILABLE, status=ConditionStatus.TRUE)
    after = drop_condition((ready(ConditionStatus.TRUE, EARLY), other), ConditionType.READY)
    assert after == (other,)
    assert find_condition(after, ConditionType.READY) is None
    assert find_condition(after, "Available") == other
