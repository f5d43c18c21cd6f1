"""The concurrency slots of a worker: how many are free while it is paused, unhealthy, resized, or moves a request."""

from __future__ import annotations

import asyncio

from lifecycle.aio import tasks
from lifecycle.execution.concurrency_slots import ConcurrencySlots


def occupy(slots: ConcurrencySlots, number: int) -> None:
    assert slots.reserve(number) == number
    for _ in range(number):
        slots.occupy_reserved()


async def test_none_is_free_while_the_worker_is_paused() -> None:
    slots = ConcurrencySlots(2)
    occupy(slots, 1)
    slots.pause(True)
    assert (slots.free, slots.reserve(1)) == (0, 0)
    waiting = asyncio.create_task(slots.wait_available())
    slots.release()
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.pause(False)
    await waiting
    assert slots.free == 2


async def test_a_pause_and_the_restriction_by_the_health_do_not_undo_each_other() -> None:
    slots = ConcurrencySlots(4)
    slots.restrict(0)
    slots.pause(True)
    slots.restrict(None)
    assert slots.free == 0
    slots.restrict(1)
    slots.pause(False)
    assert slots.free == 1
    slots.restrict(None)
    assert slots.free == 4


async def test_fewer_slots_than_are_occupied_end_nothing() -> None:
    slots = ConcurrencySlots(4)
    occupy(slots, 3)
    slots.resize(1)
    assert (slots.used, slots.free, slots.reserve(1)) == (3, 0, 0)
    waiting = asyncio.create_task(slots.wait_available())
    slots.release()
    slots.release()
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.resize(2)
    await waiting
    assert slots.free == 1
    await tasks.end((waiting,))


async def test_the_slot_of_a_request_that_is_moved_is_free_for_no_other() -> None:
    slots = ConcurrencySlots(1)
    occupy(slots, 1)
    slots.occupy_next()
    assert (slots.used, slots.free) == (2, 0)
    slots.release()  # by the request that was moved
    assert (slots.used, slots.free, slots.reserve(1)) == (1, 0, 0)
    slots.release()
    assert slots.free == 1
