"""The flush pacer keeps a distance between flushes only while that saves work."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.tokens import flush_pacer
from lifecycle.tokens.flush_pacer import FlushPacer
from tests.unit.clock import Clock

DISTANCE_SECS = 0.002


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.of(flush_pacer, monkeypatch)


def _steps(paced: FlushPacer, clock: Clock, *, secs: float, every_secs: float, things: int) -> None:
    for _ in range(round(secs / every_secs)):
        clock.now += every_secs
        paced.step(things)


def test_what_comes_seldom_does_not_wait(clock: Clock) -> None:
    paced = FlushPacer(distance_secs=DISTANCE_SECS, pays_at=4)
    _steps(paced, clock, secs=1.0, every_secs=0.005, things=1)
    assert paced.wait_secs() == 0.0


def test_what_comes_thick_and_fast_shares_a_step(clock: Clock) -> None:
    paced = FlushPacer(distance_secs=DISTANCE_SECS, pays_at=4)
    _steps(paced, clock, secs=0.2, every_secs=0.0005, things=2)
    assert paced.wait_secs() == pytest.approx(DISTANCE_SECS)
    clock.now += DISTANCE_SECS / 2
    assert paced.wait_secs() == pytest.approx(DISTANCE_SECS / 2)
    clock.now += DISTANCE_SECS
    assert paced.wait_secs() == 0.0


def test_the_distance_is_given_up_when_it_pays_no_longer(clock: Clock) -> None:
    paced = FlushPacer(distance_secs=DISTANCE_SECS, pays_at=4)
    _steps(paced, clock, secs=0.2, every_secs=0.0005, things=2)
    assert paced.steady
    _steps(paced, clock, secs=0.2, every_secs=0.01, things=1)
    assert not paced.steady


def test_a_long_silence_is_no_rate(clock: Clock) -> None:
    """One large step after it: the next comes at once."""
    paced = FlushPacer(distance_secs=DISTANCE_SECS, pays_at=4)
    clock.now += 3600
    paced.step(100)
    assert paced.wait_secs() == 0.0


def test_it_takes_the_time_of_the_loop_it_runs_in() -> None:
    async def made() -> float:
        return FlushPacer(distance_secs=DISTANCE_SECS, pays_at=1).wait_secs()

    assert asyncio.run(made()) == 0.0
