"""The share: exact by count whatever the traffic, sticky by header, and what a setting must look like."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_runtime.server.forward.setting import Address, Forwarding, parse_address, parse_forwarding
from penstock_runtime.server.forward.share import BLOCK, Blocks, Sticky
from penstock_runtime.server.settings import SettingsError

SHARES = st.one_of(st.sampled_from([0.0, 0.001, 0.01, 1 / 3, 0.5, 0.999, 1.0, 5e-324, 1 - 2**-53]), st.floats(0.0, 1.0))
# Draws that a real generator would hardly ever give: all low, all high, and anything between.
DRAWS = st.one_of(
    st.just(lambda: 0.0),
    st.just(lambda: 1.0 - 2**-53),
    st.integers(0, 2**32).map(lambda seed: random.Random(seed).random),
)


@settings(deadline=None, max_examples=200)
@given(SHARES, DRAWS, st.integers(0, 3000), st.integers(1, 3000))
def test_any_row_of_requests_has_the_share_but_for_half_a_block(
    share: float, draw: Any, before: int, length: int
) -> None:
    blocks = Blocks(share, draw)
    for _ in range(before):
        blocks.take()
    taken = sum(blocks.take() for _ in range(length))
    assert abs(taken - share * length) < 52


@settings(deadline=None, max_examples=15)
@given(SHARES, DRAWS, st.integers(0, 2 * BLOCK))
def test_the_share_of_20000_requests_is_within_half_a_point_wherever_they_begin(
    share: float, draw: Any, before: int
) -> None:
    blocks = Blocks(share, draw)
    for _ in range(before):
        blocks.take()
    taken = sum(blocks.take() for _ in range(20_000))
    assert abs(taken / 20_000 - share) < 0.005


@given(SHARES, DRAWS, st.integers(1, 60))
def test_whole_blocks_are_exact_to_one_request(share: float, draw: Any, blocks_seen: int) -> None:
    blocks = Blocks(share, draw)
    taken = sum(blocks.take() for _ in range(blocks_seen * BLOCK))
    assert abs(taken - share * blocks_seen * BLOCK) < 1 + 1e-6


def test_nothing_and_everything() -> None:
    none, every = Blocks(0.0), Blocks(1.0)
    assert [none.take() for _ in range(1000)] == [False] * 1000
    assert [every.take() for _ in range(1000)] == [True] * 1000


@pytest.mark.parametrize("place", [0, 1, 50, 98, 99])
def test_every_place_in_a_block_is_as_likely_as_the_share(place: int) -> None:
    draws = random.Random(7)
    times = 20_000
    hits = 0
    for _ in range(times):
        blocks = Blocks(0.005, draws.random)
        for _ in range(place):
            blocks.take()
        hits += blocks.take()
    # 100 are expected; 5 standard deviations are 50.
    assert 50 < hits < 150, "also those of a process's first block, though a block holds half a request"


def test_traffic_that_comes_in_a_pattern_gets_its_share_in_each_part() -> None:
    blocks = Blocks(0.1, random.Random(3).random)
    by_kind = [0] * 4
    for number in range(40_000):
        by_kind[number % 4] += blocks.take()
    assert all(850 < count < 1150 for count in by_kind), by_kind


@given(st.binary(max_size=40), st.floats(0, 1), st.floats(0, 1), st.text(max_size=10))
def test_who_is_taken_at_a_share_is_taken_at_every_larger_one(value: bytes, one: float, two: float, salt: str) -> None:
    low, high = sorted((one, two))
    assert Sticky(low, salt).take(value) <= Sticky(high, salt).take(value)
    assert Sticky(1.0, salt).take(value)
    assert not Sticky(0.0, salt).take(value)


def test_values_are_taken_by_their_share_and_a_salt_takes_others() -> None:
    users = [b"user-%d" % number for number in range(20_000)]
    first = {user for user in users if Sticky(0.05, "one").take(user)}
    second = {user for user in users if Sticky(0.05, "two").take(user)}
    # 1,000 are expected; 5 standard deviations are 154.
    assert 846 < len(first) < 1154
    assert 846 < len(second) < 1154
    assert len(first & second) < 100, "independent choices meet in 50 of 20,000"


@pytest.mark.parametrize(
    ("spec", "setting"),
    [
        ({}, None),
        ({"to": "http://iris-canary.ns.svc:80", "share": 0.05},
         Forwarding(Address("iris-canary.ns.svc", 80), 0.05)),
        ({"to": "http://Canary/", "share": 1, "by": "random"}, Forwarding(Address("canary", 80), 1.0)),
        ({"to": "http://[::1]:8080", "share": 0, "by": {"header": "X-User-ID"}},
         Forwarding(Address("::1", 8080), 0.0, "x-user-id")),
        ({"to": "http://10.0.0.1:1", "share": 0.5, "by": {"header": "a", "salt": "s"}},
         Forwarding(Address("10.0.0.1", 1), 0.5, "a", "s")),
    ],
)  # fmt: skip
def test_settings_are_read_and_shown_as_they_are_told(spec: dict[str, Any], setting: Forwarding | None) -> None:
    assert parse_forwarding(spec) == setting
    if setting is not None:
        assert parse_forwarding(setting.describe()) == setting


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to": None}, "'to' must be a URL such as"),
        ({"to": "iris:80"}, "'to' must be a URL such as"),
        ({"to": "https://iris"}, "https is not supported"),
        ({"to": "http://iris/v2"}, "a host and a port and nothing else"),
        ({"to": "http://iris?x"}, "a host and a port and nothing else"),
        ({"to": "http://user:secret@iris"}, "a host and a port and nothing else"),
        ({"to": "http://iris:0"}, "'to' must be a URL"),
        ({"to": "http://iris:99999"}, "'to' is no URL"),
        ({"to": "http://ir is"}, "'to' must be a URL"),
        ({"to": "http://[::1%25eth0]"}, "'to' must be a URL"),
        ({"to": "http://[::1"}, "'to' is no URL"),
        ({"to": "http://"}, "'to' must be a URL"),
        ({"share": None}, "'share' must be a number from 0 to 1; 5 % is 0.05"),
        ({"share": True}, "'share' must be a number"),
        ({"share": "0.5"}, "'share' must be a number"),
        ({"share": 5}, "'share' is 5, which is not from 0 to 1"),
        ({"share": float("nan")}, "'share' is nan"),
        ({"by": "hash"}, "'by' must be"),
        ({"by": {}}, "'by.header' must be"),
        ({"by": {"header": "x y"}}, "'by.header' must be"),
        ({"by": {"header": "x", "salt": 1}}, "'by.salt' must be"),
        ({"by": {"header": "x", "sald": "1"}}, "unknown key 'sald'"),
        ({"sahre": 0.1}, "unknown key 'sahre'; there are to, to_grpc, share, by"),
    ],
)
def test_what_is_no_setting_is_named(change: dict[str, Any], message: str) -> None:
    spec = {"to": "http://iris", "share": 0.1, **change}
    with pytest.raises(SettingsError) as caught:
        parse_forwarding(spec)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_an_address_can_always_be_sent_in_a_header(text: str) -> None:
    try:
        address = parse_address(f"http://{text}")
    except SettingsError:
        return
    assert address.authority.isascii()
    assert not set(address.authority) & set(" \r\n\t/\\@")
    assert parse_address(str(address)) == address
