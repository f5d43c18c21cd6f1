"""Orphans are the events that come while the client is gone and nobody reads, or after a cancel was requested."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.store.results import Outcome
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tokens.writer import TokenWriter
from lifecycle.types import RequestRecord
from tests.unit.world import LABELS, World, unchecked

CANCELLED = Outcome("cancelled", "cancelled")


async def _append(world: World, *numbers: int, worker: str = "w0", attempt: int = 1) -> None:
    for number in numbers:
        assert await world.append(number, worker=worker, attempt=attempt) == "accepted"


async def _disconnect(world: World, frontend: str = "f0", *, admitting: bool = True) -> str:
    gone = await world.store.disconnect("r", frontend, 0, "closed_unexpectedly", admitting=admitting)
    return gone.what


async def _end(world: World, last: int, **finish: Any) -> RequestRecord:
    ended = await world.finish(last, **finish)
    assert ended.record is not None
    assert ended.record.orphan_events == (await world.record()).orphan_events
    assert b"orphan_from" not in ended.text
    return ended.record


async def test_a_request_that_is_read_to_its_end_has_none(world: World) -> None:
    await world.run()
    await _append(world, 1, 2)
    assert (await _end(world, 2)).orphan_events == 0


async def test_what_comes_after_the_last_reader_of_a_continued_request_counts(world: World) -> None:
    await world.run(on_disconnect="continue")
    await _append(world, 1, 2)
    assert await _disconnect(world) == "continues"
    await _append(world, 3, 4, 5)
    assert await _disconnect(world) == "continues", "a repetition"
    await _append(world, 6)
    assert (await _end(world, 6)).orphan_events == 4


async def test_what_comes_while_somebody_reads_again_does_not_count(world: World) -> None:
    await world.run(on_disconnect="continue")
    await _append(world, 1)
    await _disconnect(world)
    await _append(world, 2, 3)
    for _ in range(2):
        await world.store.attach("r", "f1", 1)
    await _append(world, 4, 5, 6)
    await _disconnect(world, "f1", admitting=False)
    await _append(world, 7)
    assert (await _end(world, 7)).orphan_events == 3


async def test_nothing_counts_while_another_frontend_reads(world: World) -> None:
    await world.run(on_disconnect="continue")
    await world.store.attach("r", "f1", 1)
    await _disconnect(world)
    await _append(world, 1, 2)
    assert (await _end(world, 2)).orphan_events == 0


async def test_what_comes_in_a_grace_counts(world: World) -> None:
    await world.run(grace_secs=5)
    await _append(world, 1)
    assert await _disconnect(world) == "grace"
    await _append(world, 2, 3)
    world.shift_clock(6)
    await world.store.sweep(0)
    assert (await _end(world, 3, outcome=CANCELLED)).orphan_events == 2


async def test_what_comes_after_a_stop_counts_although_it_is_delivered(world: World) -> None:
    await world.run()
    await _append(world, 1)
    await world.cancel("stop")
    await _append(world, 2, 3)
    await world.store.attach("r", "f1", 1)
    await _append(world, 4)
    await world.cancel("stop")
    assert (await _end(world, 4)).orphan_events == 3


async def test_what_an_engine_produces_after_a_kill_counts_although_redis_refuses_it(world: World) -> None:
    await world.run()
    await _append(world, 1, 2)
    await world.cancel()
    assert await world.append(3) == "closed"
    assert (await _end(world, 2, outcome=CANCELLED._replace(produced_events=7))).orphan_events == 5


async def test_a_kill_after_a_stop_changes_no_beginning(world: World) -> None:
    await world.run()
    await _append(world, 1)
    await world.cancel("stop")
    await _append(world, 2)
    await world.cancel("kill")
    assert (await _end(world, 2, outcome=CANCELLED._replace(produced_events=3))).orphan_events == 2


async def test_an_unreported_end_of_the_worker_leaves_what_the_stream_has(world: World) -> None:
    await world.run()
    await _append(world, 1)
    await world.cancel("stop")
    await _append(world, 2)
    await world.reap("w0")
    record = await world.record()
    assert (record.status, record.orphan_events) == ("cancelled", 1)


async def test_a_queued_request_that_is_cancelled_has_none(world: World) -> None:
    await world.admit()
    await world.cancel()
    assert (await world.record()).orphan_events == 0


@pytest.mark.parametrize("read", [False, True])
async def test_after_the_death_of_the_frontend_they_begin_when_another_has_taken_over(world: World, read: bool) -> None:
    await world.run(on_disconnect="continue")
    if read:
        await world.store.attach("r", "f1", 1)
    await _append(world, 1, 2)
    await world.reap("f0")
    await _append(world, 3)
    assert (await _end(world, 3)).orphan_events == (0 if read else 1)


async def test_they_go_on_over_an_attempt_elsewhere(world: World) -> None:
    await world.run(resumable=True, on_disconnect="continue")
    await _append(world, 1)
    await _disconnect(world)
    await _append(world, 2)
    await world.reap("w0")
    await world.take("w1", resumable=True)
    await _append(world, 3, worker="w1", attempt=2)
    assert (await _end(world, 3, worker="w1", attempt=2)).orphan_events == 2


async def test_a_sink_reports_what_it_could_not_append(world: World) -> None:
    await world.run()
    await _append(world, 1)
    await world.cancel()
    sink = TokenWriter(world.store, ["w0"]).open("r", unchecked(base=1), lambda why: None)
    sink.put("flushed", 8)
    assert sink.begin_flush() is not None
    sink.put("held", 8)
    sink.discard()
    sink.put("late", 8)
    assert (await sink.finish(CANCELLED, 0.0)).what == "done"
    assert (await world.record()).orphan_events == 3


async def test_the_owner_counts_them_at_the_end(world: World) -> None:
    await world.run()
    await _append(world, 1)
    await world.cancel("stop")
    await _append(world, 2, 3)
    metrics = Metrics()
    record = await _end(world, 3)
    metrics.of(record.counted_as).observe_end(record)
    assert metrics.registry.get_sample_value("lifecycle_orphan_tokens_total", {"model": LABELS.model}) == 2
