"""Polls of records cost the same whatever is in flight."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import pytest

from lifecycle.aio import rate_limiter
from lifecycle.aio.rate_limiter import RateLimiter
from tests.unit.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.of(rate_limiter, monkeypatch)


def test_ten_thousand_silent_requests_get_no_more_than_there_are(clock: Clock) -> None:
    taken = RateLimiter(per_sec=20)
    had = 0
    for _ in range(100):  # a hundred seconds
        clock.now += 1.0
        had += sum(taken.take() for _ in range(667))
    assert 100 * 20 <= had <= 101 * 21


def test_a_few_are_looked_at_whenever_they_are_due(clock: Clock) -> None:
    taken = RateLimiter(per_sec=20)
    for _ in range(50):
        clock.now += 1.0
        assert all(taken.take() for _ in range(10))


def test_who_gets_none_has_a_fair_chance_later(clock: Clock) -> None:
    """Requests that came together fall silent together, and always in the same order."""
    taken, interval_secs = RateLimiter(per_sec=1), 15.0
    due = [(clock.now + interval_secs, number) for number in range(200)]
    looked_at = set()
    heapify(due)
    while due[0][0] < 1000 + 3600:
        clock.now, number = heappop(due)
        if taken.take():
            looked_at.add(number)
        heappush(due, (clock.now + taken.next_secs(interval_secs), number))
    assert len(looked_at) == 200
