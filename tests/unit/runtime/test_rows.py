"""Rows of several requests in one array: who fits with whom, and that each gets its own back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.engine.rows import COPY_BYTES, NotByRow, count_bytes, count_rows, group_of, join, split


def x(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"x": x(1, 4)}, {"x": x(9, 4)}, True),
        ({"x": x(1, 4)}, {"x": x(1, 5)}, False),
        ({"x": x(1, 4)}, {"x": x(1, 2, 2)}, False),
        ({"x": x(1, 4)}, {"x": x(1, 4, dtype=np.float64)}, False),
        ({"a": x(1), "b": x(1, 2)}, {"b": x(3, 2), "a": x(3)}, True),
        ({"a": x(1), "b": x(1, 2)}, {"a": x(1, 2), "b": x(1)}, False),
    ],
)
def test_requests_fit_by_everything_but_the_number_of_rows(
    one: dict[str, np.ndarray], other: dict[str, np.ndarray], same: bool
) -> None:
    assert (group_of(("y",), one) == group_of(("y",), other)) is same
    assert group_of(("y",), one) != group_of(("y", "z"), one)
    assert group_of(("y", "z"), one) != group_of(("z", "y"), one)


@pytest.mark.parametrize("inputs", [{}, {"x": x()}, {"x": x(0, 4)}, {"a": x(2), "b": x(3)}, {"a": x(2), "b": x()}])
def test_what_has_no_rows_to_speak_of_runs_alone(inputs: dict[str, np.ndarray]) -> None:
    assert group_of(("y",), inputs) is None


def test_rows_and_bytes_are_counted() -> None:
    assert [count_rows({"x": x(3, 4)}), count_rows({"x": x()}), count_rows({})] == [3, 1, 1]
    assert count_bytes({"a": x(3, 4), "b": x(3)}) == 60


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20))
def test_each_gets_its_own_rows_back(counts: list[int]) -> None:
    requests = [
        {"x": np.full((count, 3), number), "text": np.array([f"{number}"] * count, np.object_)}
        for number, count in enumerate(counts)
    ]
    joint = join(requests)
    for part, request in zip(split([joint["x"], joint["text"]], counts), requests, strict=True):
        assert (part[0] == request["x"]).all()
        assert (part[1] == request["text"]).all()


def test_small_parts_do_not_keep_the_whole_alive_and_large_ones_are_not_copied() -> None:
    wide = np.zeros((4, COPY_BYTES // 4 + 1), np.float32)
    narrow = np.zeros((4, COPY_BYTES // 4), np.float32)
    for large, small in split([wide, narrow], [1, 1, 2]):
        assert large.base is wide
        assert small.base is None or len(small) == 2


@pytest.mark.parametrize("output", [x(), x(3), x(5, 2)])
def test_outputs_that_do_not_have_the_rows_are_not_split(output: np.ndarray) -> None:
    with pytest.raises(NotByRow, match="for 4 rows"):
        split([x(4), output], [1, 3])
