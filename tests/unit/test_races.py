"""Pairs of actions that can race, and the result of each. Every pair runs on fakeredis and on a real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from lifecycle.store.results import Outcome
from tests.unit.world import World

Act = Callable[[World], Awaitable[object]]


class Race(NamedTuple):
    """A running request without tokens, then two actions that do not know of each other."""

    name: str
    first: Act
    second: Act
    status: str
    error_type: str
    cancel_mode: str | None = None


async def _cancel(world: World) -> None:
    await world.cancel("kill")


async def _stop(world: World) -> None:
    await world.cancel("stop")


async def _finish(world: World) -> None:
    await world.finish()


async def _fail(world: World) -> None:
    await world.store.fail("r", "response_timeout", "silence")


async def _reap_worker(world: World) -> None:
    await world.reap("w0")


async def _reap_frontend(world: World) -> None:
    await world.reap("f0")


async def _confirm(world: World) -> None:
    await world.finish(outcome=Outcome("cancelled", "cancelled"))


async def _disconnect(world: World) -> None:
    await world.store.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)


async def _deadline(world: World) -> None:
    world.shift_clock(20)
    await world.store.sweep(0)


RACES = [
    Race("finish, then cancel", _finish, _cancel, "completed", ""),
    Race("cancel, then finish: the finish confirms it", _cancel, _finish, "cancelled", "cancelled", "kill"),
    Race("stop, then finish", _stop, _finish, "completed", "", "stop"),
    Race("finish, then reap of its worker", _finish, _reap_worker, "completed", ""),
    Race("cancel, then reap of its worker", _cancel, _reap_worker, "cancelled", "cancelled", "kill"),
    Race("stop, then reap of its worker", _stop, _reap_worker, "cancelled", "cancelled", "stop"),
    Race("finish, then reap of its frontend", _finish, _reap_frontend, "completed", ""),
    Race("reap of its frontend, then finish", _reap_frontend, _finish, "failed", "frontend_lost"),
    Race("reap of its frontend, then cancel", _reap_frontend, _cancel, "failed", "frontend_lost"),
    Race("cancel, then reap of its frontend: its worker confirms", _cancel, _reap_frontend, "running", "", "kill"),
    Race("fail, then finish", _fail, _finish, "failed", "response_timeout"),
    Race("finish, then fail", _finish, _fail, "completed", ""),
    Race("cancel, then fail", _cancel, _fail, "running", "", "kill"),
    Race("fail, then cancel", _fail, _cancel, "failed", "response_timeout"),
    Race("stop, then kill", _stop, _cancel, "running", "", "kill"),
    Race("kill, then stop: kill is final", _cancel, _stop, "running", "", "kill"),
    Race("disconnect, then finish", _disconnect, _finish, "cancelled", "cancelled", "kill"),
    Race("finish, then disconnect", _finish, _disconnect, "completed", ""),
    Race("deadline, then finish", _deadline, _finish, "failed", "deadline"),
    Race("finish, then deadline", _finish, _deadline, "completed", ""),
    Race("cancel, then deadline: its worker confirms", _cancel, _deadline, "running", "", "kill"),
    Race("deadline, then cancel", _deadline, _cancel, "failed", "deadline"),
    Race("cancel, then the confirmation", _cancel, _confirm, "cancelled", "cancelled", "kill"),
]


@pytest.mark.leaves_inflight
@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
async def test_the_result_of_a_race(world: World, race: Race) -> None:
    await world.run(deadline_secs=10)
    await race.first(world)
    await race.second(world)
    record = await world.record()
    assert (record.status, record.error_type, record.cancel_mode) == (race.status, race.error_type, race.cancel_mode)
    label = "success" if race.status == "completed" else "error"
    assert await world.totals() == ({(label, race.error_type): 1} if record.status.terminal else {})
