"""Prediction ids: they come back as they went, are nobody's to forge, and survive a rotation of keys."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_runtime.server.feedback.ids import ForgedId, Issuer, read_id
from penstock_runtime.server.feedback.keys import Keys

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(write_keys(tmp_path_factory.mktemp("keys"), os.urandom(32)))


def write_keys(folder: Path, current: bytes, **others: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, key in {"current": current, **others}.items():
        (folder / name).write_bytes(key)
    return folder


small = st.lists(st.integers(0, 255), min_size=1, max_size=32)
integers = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=32)
numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=32)
texts = st.lists(st.text(max_size=5), min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(predictions=small | integers | numbers | texts, cohort=st.text(max_size=40))
def test_an_id_holds_what_was_put_in(keys: Keys, predictions: list[Any], cohort: str) -> None:
    issuer = Issuer(keys, "b8d4f7c2xk", cohort, "m")
    text = issuer.issue(NOW + 0.9, len(predictions), predictions).decode()
    known = read_id(text, keys, "m")
    assert (known.issued, known.revision, known.cohort) == (NOW, "b8d4f7c2xk", cohort)
    assert known.rows == len(predictions)
    assert known.predictions == tuple(predictions)
    assert text.replace("-", "").replace("_", "").isalnum(), "fit for a header, a URL and a file name"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(predictions=small | integers | numbers | texts, cohort=st.text(max_size=40))
def test_ids_that_are_issued_together_are_as_each_by_itself(keys: Keys, predictions: list[Any], cohort: str) -> None:
    issuer = Issuer(keys, "b8d4f7c2xk", cohort, "m")
    first = read_id(issuer.issue(NOW, 1, predictions[:1]).decode(), keys, "m")
    together = issuer.issue_each(NOW + 0.9, len(predictions), predictions)
    for number, (issued, prediction) in enumerate(zip(together, predictions, strict=True), 1):
        counter, predicted = first.counter + number, (prediction,)
        assert read_id(issued.decode(), keys, "m") == replace(first, counter=counter, predictions=predicted)
    undecided = [read_id(issued.decode(), keys, "m") for issued in issuer.issue_each(NOW, 3, ())]
    assert [(known.rows, known.predictions) for known in undecided] == [(1, None)] * 3
    assert issuer.issue_each(NOW, 0, ()) == []


@pytest.mark.parametrize(
    ("rows", "predictions"),
    [(33, list(range(33))), (2, ["x" * 200, "y" * 200]), (1, ["x" * 256]), (3, []), (70_000, []), (2, [1])],
)
def test_large_predictions_leave_only_the_row_count(keys: Keys, rows: int, predictions: list[Any]) -> None:
    known = read_id(Issuer(keys, "r", "none", "m").issue(NOW, rows, predictions).decode(), keys, "m")
    assert known.predictions is None
    assert known.rows == min(rows, 65_535)


def test_a_common_id_is_short(keys: Keys) -> None:
    text = Issuer(keys, "b8d4f7c2xk", "b8d4f7c2xk-abcde", "m").issue(NOW, 1, [2])
    assert len(text) <= 80


def test_ids_are_unique(keys: Keys) -> None:
    issuers = [Issuer(keys, "r", "none", "m") for _ in range(3)]
    made = {issuer.issue(NOW, 1, [1]) for issuer in issuers for _ in range(100)}
    assert len(made) == 300


def test_no_changed_byte_passes(keys: Keys) -> None:
    text = Issuer(keys, "r", "none", "m").issue(NOW, 1, [1]).decode()
    for index, char in enumerate(text):
        forged = text[:index] + ("A" if char != "A" else "B") + text[index + 1 :]
        try:
            known = read_id(forged, keys, "m")
        except ForgedId:
            continue
        # The last character has bits that base64 does not use: another spelling of the same id.
        assert index == len(text) - 1
        assert known == read_id(text, keys, "m")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.hex()))
def test_text_that_is_no_id_is_forged(text: str) -> None:
    with pytest.raises(ForgedId):
        read_id(text, Keys(Path("/nowhere")), "m")


def test_an_id_of_another_key_is_forged(keys: Keys, tmp_path: Path) -> None:
    other = Keys(write_keys(tmp_path, os.urandom(32)))
    with pytest.raises(ForgedId):
        read_id(Issuer(other, "r", "none", "m").issue(NOW, 1, [1]).decode(), keys, "m")


def test_replicas_with_the_same_key_read_each_others_ids(tmp_path: Path) -> None:
    folder = write_keys(tmp_path, b"k" * 32)
    text = Issuer(Keys(folder), "r", "none", "m").issue(NOW, 1, ["yes"]).decode()
    assert read_id(text, Keys(folder), "m").predictions == ("yes",)


def test_rotation_loses_no_id_in_flight(tmp_path: Path) -> None:
    old, new = os.urandom(32), os.urandom(32)
    keys = Keys(write_keys(tmp_path, old))
    issuer = Issuer(keys, "r", "none", "m")
    before = issuer.issue(NOW, 1, [1]).decode()
    write_keys(tmp_path, new, previous=old)
    assert keys.refresh()
    after = issuer.issue(NOW, 1, [1]).decode()
    assert read_id(before, keys, "m").counter + 1 == read_id(after, keys, "m").counter
    write_keys(tmp_path, os.urandom(32), previous=new)
    keys.refresh()
    assert read_id(after, keys, "m")
    with pytest.raises(ForgedId):
        read_id(before, keys, "m")


def test_pods_that_see_a_rotation_at_different_times_read_each_others_ids(tmp_path: Path) -> None:
    old, new = os.urandom(32), os.urandom(32)
    early, late = Keys(write_keys(tmp_path / "early", old)), Keys(write_keys(tmp_path / "late", old))
    both = (early, late)

    def exchange() -> None:
        for one, other in (both, both[::-1]):
            assert read_id(Issuer(one, "r", "none", "m").issue(NOW, 1, [1]).decode(), other, "m")

    for folder, keys in (("early", early), ("late", late)):
        write_keys(tmp_path / folder, old, next=new)
        keys.refresh()
        exchange()
    for folder, keys in (("early", early), ("late", late)):
        (tmp_path / folder / "next").unlink()
        write_keys(tmp_path / folder, new, previous=old)
        keys.refresh()
        exchange()


def test_a_key_that_vanishes_changes_nothing(tmp_path: Path) -> None:
    keys = Keys(write_keys(tmp_path, os.urandom(32)))
    text = Issuer(keys, "r", "none", "m").issue(NOW, 1, [1]).decode()
    (tmp_path / "current").unlink()
    assert not keys.refresh()
    assert read_id(text, keys, "m")
    (tmp_path / "current").write_bytes(b"")
    assert not keys.refresh()
    assert read_id(text, keys, "m")


def test_integers_that_64_bits_with_a_sign_do_not_hold_are_left_out(keys: Keys) -> None:
    issuer = Issuer(keys, "r", "none", "m")
    for value, kept in ((2**63 - 1, (2**63 - 1,)), (2**63, None)):
        assert read_id(issuer.issue(NOW, 1, [value]).decode(), keys, "m").predictions == kept
