"""JSON may be nested 100 levels deep; what is deeper is refused before any parser recurses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_runtime.protocol import depth
from penstock_runtime.protocol.depth import check_depth
from penstock_runtime.protocol.errors import InvalidRequest
from tests.unit.runtime.process import SETOSA, Server, iris_request


def lists(levels: int, inside: str = "") -> str:
    return "[" * levels + inside + "]" * levels


def objects(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


FINE = [lists(100), objects(100), "[" + ",".join([lists(99)] * 50) + "]", '{"a":"' + "[" * 5000 + '"}',
        json.dumps(["\\", '"[[[', "]" * 500] * 90), lists(50, objects(50))]  # fmt: skip
DEEP = [lists(101), objects(101), "[" * 200_000, lists(51, objects(50)), json.dumps(["]" * 500]) + lists(101),
        '["\\\\",' + lists(101) + "]", '["\\"",' + lists(101) + "]",
        "[" + ",".join([lists(99)] * 50) + lists(101)]  # fmt: skip


@pytest.mark.parametrize("chunk", [7, 2**20])
def test_a_hundred_levels_and_not_one_more(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(depth, "_CHUNK", chunk)
    for padding in ("", " " * 2000):
        for text in FINE:
            check_depth((text + padding).encode())
        for text in DEEP:
            with pytest.raises(InvalidRequest, match="nested deeper than 100 levels"):
                check_depth((text + padding).encode())


def height(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(height, value.values()), default=0)
    return 1 + max(map(height, value), default=0) if isinstance(value, list) else 0


@given(
    st.recursive(
        st.text('a"\\[]{}', max_size=8) | st.integers(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('"\\[{', max_size=3), inner, max_size=3),
        max_leaves=30,
    ),
    st.integers(0, 6),
)
def test_the_depth_is_that_of_the_parsed_value(value: Any, most: int) -> None:
    assert depth._nests_deeper(json.dumps(value).encode(), most) == (height(value) > most)


def test_the_server_says_so(iris: Server) -> None:
    message = iris_request(SETOSA, note=json.loads(lists(100)))
    reply = iris.infer(message)
    assert (reply.status, reply.json["error"]) == (400, "the JSON is nested deeper than 100 levels")
    assert iris.infer(iris_request(SETOSA, note=json.loads(lists(99)))).status == 200
