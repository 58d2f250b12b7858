"""The clock and the token bucket."""

from __future__ import annotations

import email.utils

import pytest

from penstock.adapters.bucket import TokenBucket
from penstock.adapters.clock import ServerClock
from tests.fakes.clock import FakeClock
from tests.fakes.timer import FakeTimer


def date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


def test_a_small_difference_is_not_corrected() -> None:
    local = FakeClock(1000.9)
    clock = ServerClock(local.now)
    for ahead in (-1.5, -0.5, 0.5, 1.5):
        clock.observe(date(1000.9 + ahead))
        assert clock.now() == 1000.9


def test_a_clock_that_is_wrong_follows_the_server() -> None:
    local = FakeClock(1000.0)
    clock = ServerClock(local.now)
    clock.observe(date(4600))
    assert clock.now() == pytest.approx(4600, abs=1)
    assert clock.skew == pytest.approx(3600, abs=1)
    local.advance(10)
    before = clock.now()
    clock.observe(date(4611))
    assert clock.now() == before, "it does not tremble with every answer"
    local.set(4620)
    clock.observe(date(4620))
    assert clock.now() == 4620, "and goes back when this machine's clock is put right"


@pytest.mark.parametrize("text", ["", "yesterday", "Mon, 99 Nov 2026 20:00:00 GMT"])
def test_a_date_that_is_none_is_ignored(text: str) -> None:
    clock = ServerClock(FakeClock(1000.0).now)
    clock.observe(text)
    assert clock.now() == 1000.0


def test_a_bucket_allows_a_burst_and_then_a_rate() -> None:
    timer = FakeTimer()
    bucket = TokenBucket(2.0, 3, timer)
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]
    timer.advance(0.5)
    assert [bucket.try_take() for _ in range(2)] == [True, False]
    timer.advance(100)
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]


def test_reservations_queue_up() -> None:
    timer = FakeTimer()
    bucket = TokenBucket(2.0, 1, timer)
    assert [bucket.reserve() for _ in range(4)] == [0.0, 0.5, 1.0, 1.5]
    timer.advance(1.5)
    assert bucket.reserve() == 0.5


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_a_bucket_that_never_fills_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        TokenBucket(rate, burst)
