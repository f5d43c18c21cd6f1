"""A worker remembers the ends that it has reported, so that none of those requests runs again when Redis loses one."""

from __future__ import annotations

import pytest

from lifecycle.execution.remembered_ends import RememberedEnds, Report
from lifecycle.store.results import Ended, Outcome, Start, StartedAttempt
from lifecycle.tokens.writer import Reported
from tests.unit.world import World

_COMPLETED = Outcome("completed", finish_reason="stop")
_CANCELLED = Outcome("cancelled", "cancelled", "cancelled")


async def _ended(world: World, outcome: Outcome = _COMPLETED) -> tuple[RememberedEnds, StartedAttempt]:
    """Return what a worker remembers that has run one token and ended, and its start. Redis has neither."""
    start = (await world.run()).start
    assert isinstance(start, Start)
    await world.append(1)
    started = StartedAttempt(start.attempt, start.nonce)
    ends = RememberedEnds(world.store)
    ends.remember("r", Report(Ended("done"), Reported(started, outcome, 1, None, None)))
    return ends, started


async def test_a_request_that_has_ended_here_is_not_started_here_again(world: World) -> None:
    ends, started = await _ended(world)
    await world.forget_start()
    start = (await world.take()).start
    assert isinstance(start, Start)
    assert start.nonce != started.nonce
    assert await ends.end_restarted("r", "w0", start) is not None
    record = await world.record()
    assert (record.status, record.error_type) == ("failed", "state_lost"), "its only token is lost"


async def test_an_end_that_redis_has_lost_is_reported_again(world: World) -> None:
    ends, _ = await _ended(world)
    assert await ends.report_again("r", await world.record()) is not None
    assert (await world.record()).status == "completed"


async def test_a_worker_whose_lease_has_expired_reports_an_end_that_is_lost(world: World) -> None:
    """A primary that was demoted has confirmed it, and the new one does not hear of the worker in time."""
    ends, _ = await _ended(world)
    expired = await world.expire("w0")
    await ends.check("r")
    assert (await world.record()).status == "completed"
    assert (await world.store.reap(0, expired)).ended == 0


@pytest.mark.parametrize(
    ("outcome", "shown"), [(_COMPLETED, ("failed", "state_lost")), (_CANCELLED, ("cancelled", "cancelled"))]
)
async def test_a_request_that_waits_again_after_a_loss_ends(
    world: World, outcome: Outcome, shown: tuple[str, str]
) -> None:
    ends, _ = await _ended(world, outcome)
    await world.forget_start()
    assert list(ends.of_shard(0)) == ["r"]
    await ends.check("r")
    record = await world.record()
    assert (record.status, record.error_type) == shown


@pytest.mark.leaves_inflight
async def test_a_remembered_end_ends_no_other_request_and_no_later_attempt(world: World) -> None:
    ends, _ = await _ended(world)
    start = (await world.run("s")).start
    assert isinstance(start, Start)
    assert await ends.end_restarted("s", "w0", start) is None
    assert await ends.end_restarted("r", "w0", start._replace(attempt=2)) is None
    assert [(await world.record(rid)).status for rid in ("r", "s")] == ["running", "running"]


@pytest.mark.leaves_inflight
async def test_an_end_whose_admission_is_lost_too_is_told_to_the_next_request_with_its_id(world: World) -> None:
    ends, started = RememberedEnds(world.store), StartedAttempt(1, "lost----")
    ends.remember("r", Report(Ended("done"), Reported(started, _COMPLETED, 1, None, None)))
    await ends.check("r")
    await world.run()
    record = await world.record()
    assert (record.status, record.attempt, record.lost_start) == ("running", 1, 1)
