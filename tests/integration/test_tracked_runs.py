"""Track what runs in an application's process: it is seen, counted, cancelled and resumed from everywhere."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lifecycle
from lifecycle.settings import Settings, as_environment
from lifecycle.store.transitions import Store
from tests.conftest import MakeSettings
from tests.library import Source, connect, given, start_python
from tests.waiting import wait_until

JSON_VALUES: list[Any] = [None, True, 0, -1, 1.5, "text", "", "\ud800", [], [1, [2]], {}, {"a": None, "ü": [{}]}, 2**70]


async def test_any_json_values_come_as_they_were_yielded(settings: Settings) -> None:
    async def source(context: lifecycle.EngineContext) -> AsyncIterator[Any]:
        assert (context.endpoint, context.owner) == ("agent", "acme")
        for value in JSON_VALUES:
            yield value

    async with connect(settings) as tracker:
        async with await tracker.track(source, model="m", owner="acme", labels={"team": "a"}) as run:
            got = [event async for event in run]
        assert got[:7] == JSON_VALUES[:7]
        assert got[7] == "\ufffd"
        assert got[8:12] == JSON_VALUES[8:12]
        record = await tracker.get(run.id)
        assert (record.status, record.endpoint, record.model) == ("completed", "agent", "m")
        assert (record.owner, record.labels, record.output_events) == ("acme", {"team": "a"}, len(JSON_VALUES) - 1)
        assert record.frontend == record.worker == tracker.id
        assert (await tracker.inflight()).total == 0


async def test_it_is_counted_and_seen_from_another_replica(settings: Settings) -> None:
    source = Source(pause_secs=0.01)
    async with connect(settings) as here, connect(settings) as there:
        async with await here.track(source.events(), model="m", id="mine") as run:
            assert run.id == "mine"
            inflight = await there.inflight()
            assert (inflight.total, inflight.running, inflight.queued) == (1, 1, 0)
            assert [(group.model, group.endpoint) for group in inflight.groups] == [("m", "agent")]
            assert (await there.inflight("other")).total == 0
            assert (await there.get("mine")).status == "running"
            assert {(replica.role, replica.url) for replica in await there.replicas()} == {("frontend", None)}
        assert source.closed.is_set()
        record = await there.get("mine")
        assert (record.status, record.cancelled_by) == ("cancelled", "disconnect")
        assert (await there.inflight()).total == 0


@pytest.mark.parametrize("mode", ["kill", "stop"])
async def test_a_cancel_from_another_replica_ends_it(settings: Settings, mode: str) -> None:
    async def source(context: lifecycle.EngineContext) -> AsyncIterator[int]:
        number = 0
        while not context.is_stopped:
            number += 1
            yield number
            await asyncio.sleep(0.005)

    async with connect(settings) as here, connect(settings) as there:
        async with await here.track(source, model="m") as run:
            events = run.events()
            await anext(events)
            record = await there.cancel(run.id, mode=mode, reason="enough", wait_secs=5)
            if mode == "stop":
                assert record.status == "completed"
                rest = [event async for _, event in events]
                assert rest == list(range(2, 2 + len(rest)))
            else:
                assert (record.status, record.cancelled_by) == ("cancelled", "operator:library")
                with pytest.raises(lifecycle.RequestFailed, match="enough") as failure:
                    async for _ in events:
                        pass
                assert failure.value.error_type == "cancelled"
        assert (await there.cancel(run.id)).status == record.status  # once more changes nothing


async def test_a_resume_elsewhere_has_no_gap_and_no_repeat(settings: Settings) -> None:
    source = Source(200, pause_secs=0.001)
    async with connect(settings) as here, connect(settings) as there:
        async with await here.track(source.events(), model="m", on_disconnect="continue") as run:
            async for at, event in run.events():
                first, last = event, at
                if event == 20:
                    break
        got = [event async for _, event in await there.resume(run.id, after=last)]
        assert (first, got) == (20, list(range(21, 201)))
        assert [event async for _, event in await there.resume(run.id)] == list(range(1, 201))
        assert (await there.get(run.id)).status == "completed"


async def test_a_loop_that_is_broken_off_is_a_disconnect_soon(settings: Settings) -> None:
    source = Source(pause_secs=0.005)
    async with connect(settings) as tracker:
        async for _ in await tracker.track(source.events(), model="m", id="bare"):
            break
        gc.collect()
        await asyncio.wait_for(source.closed.wait(), 5)
        await wait_until(lambda: _has_status(tracker, "bare", "cancelled"))


async def test_a_run_that_is_dropped_is_a_disconnect(settings: Settings) -> None:
    source = Source(pause_secs=0.005)
    async with connect(settings) as tracker:
        run = await tracker.track(source.events(), model="m", id="dropped")
        await wait_until(lambda: source.yielded > 1)
        del run
        gc.collect()
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_while_somebody_reads_elsewhere_it_goes_on(settings: Settings) -> None:
    source = Source(pause_secs=0.005)
    async with connect(settings) as here, connect(settings) as there:
        async with await here.track(source.events(), model="m") as run:
            resumed = await there.resume(run.id)
            events = resumed.events()
            await anext(events)
        assert (await here.get(run.id)).status == "running"
        await anext(events)
        await resumed.aclose()
        await asyncio.wait_for(source.closed.wait(), 5)
        await wait_until(lambda: _has_status(here, run.id, "cancelled"))


async def test_a_source_that_raises_fails_its_request(settings: Settings) -> None:
    async def source(failure: Exception) -> AsyncIterator[int]:
        yield 1
        raise failure

    async with connect(settings) as tracker:
        for raised, error_type in (
            (RuntimeError("broken"), "internal"),
            (lifecycle.Unavailable("later"), "unavailable"),
            (lifecycle.EngineError("no", status=404), "not_found"),
        ):
            async with await tracker.track(source(raised), model="m") as run:
                with pytest.raises(lifecycle.RequestFailed, match=str(raised)) as failure:
                    async for _ in run:
                        pass
            assert failure.value.error_type == error_type
            assert failure.value.request_id == run.id
            assert (await tracker.get(run.id)).error_type == error_type


async def test_an_unavailable_source_without_an_event_fails_too(settings: Settings) -> None:
    async def source() -> AsyncIterator[int]:
        raise lifecycle.Unavailable("no connection")
        yield 1

    async with connect(settings) as tracker, await tracker.track(source(), model="m") as run:
        with pytest.raises(lifecycle.RequestFailed, match="no connection"):
            async for _ in run:
                pass


async def test_what_cannot_be_admitted_is_closed(settings: Settings) -> None:
    async with connect(settings) as tracker:
        async with await tracker.track(Source(pause_secs=0.01).events(), model="m", id="twice"):
            refused = Source()
            with pytest.raises(lifecycle.Conflict, match="twice"):
                await tracker.track(refused.events(), model="m", id="twice")
            assert refused.yielded == 0
        wrongs: list[dict[str, Any]] = [
            {"id": "no spaces"},
            {"model": ""},
            {"on_disconnect": "x"},
            {"deadline_secs": -1},
        ]
        for wrong in wrongs:
            with pytest.raises(lifecycle.InvalidValue) as error:
                await tracker.track(Source().events(), **{"model": "m", **wrong})
            assert isinstance(error.value, ValueError)
        with pytest.raises(lifecycle.InvalidValue, match="labels"):
            await tracker.track(Source().events(), model="m", labels={str(n): "" for n in range(17)})
        tracker.draining = True
        with pytest.raises(lifecycle.Unavailable, match="drains"):
            await tracker.track(Source().events(), model="m")


async def test_a_slow_reader_holds_its_source_back(make_settings: MakeSettings) -> None:
    source = Source(size=10_000)
    async with connect(make_settings(reader_buffer_bytes=100_000)) as tracker:
        async with await tracker.track(source.events(), model="m", on_disconnect="continue") as run:
            events = run.events()
            await anext(events)
            await wait_until(lambda: source.yielded >= 10)
            for _ in range(5):
                await tracker.get(run.id)  # time for more, if it were not held back
            assert source.yielded <= 12
            for _ in range(20):
                await anext(events)
            assert source.yielded >= 20
        held_at = source.yielded
        await wait_until(lambda: source.yielded > held_at + 50)  # nobody reads here: it runs on
        await tracker.cancel(run.id, wait_secs=5)


async def test_a_deadline_ends_it(settings: Settings) -> None:
    source = Source(pause_secs=0.005)
    async with connect(settings) as tracker:
        async with await tracker.track(source.events(), model="m", deadline_secs=0.2) as run:
            with pytest.raises(lifecycle.RequestFailed) as failure:
                async for _ in run:
                    pass
        assert failure.value.error_type == "deadline"
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_leaving_the_tracker_ends_its_runs(settings: Settings) -> None:
    source = Source(pause_secs=0.005)
    async with connect(settings) as tracker:
        await tracker.track(source.events(), model="m", id="left", on_disconnect="continue")
    assert source.closed.is_set()
    async with connect(settings) as other:
        assert (await other.get("left")).cancelled_by == "disconnect"


async def test_what_the_block_raises_is_not_wrapped(settings: Settings) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with connect(settings):
            raise KeyError("mine")


PROCESS = """
import asyncio, json, sys
import lifecycle

async def source():
    number = 0
    while True:
        number += 1
        yield number
        await asyncio.sleep(0.01)

async def main():
    async with lifecycle.Tracker.connect(endpoint="agent", **json.loads(sys.argv[1])) as tracker:
        for rid, on_disconnect in (("a", "cancel"), ("b", "continue")):
            run = await tracker.track(source(), model="m", id=rid, on_disconnect=on_disconnect)
            runs.append(run)
        print("running", flush=True)
        await asyncio.sleep(60)

runs = []
asyncio.run(main())
"""


async def test_a_killed_process_loses_its_runs_within_a_lease(settings: Settings) -> None:
    process = await start_python(PROCESS, json.dumps(given(settings)))
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"running\n"
        async with connect(settings) as tracker:
            assert (await tracker.inflight()).total == 2
            resumed = await tracker.resume("b")
            process.send_signal(signal.SIGKILL)
            with pytest.raises(lifecycle.RequestFailed) as failure:
                async for _ in resumed:
                    pass
            assert failure.value.error_type == "worker_lost"
            for rid in "ab":
                await wait_until(lambda rid=rid: _has_status(tracker, rid, "failed"))  # type: ignore[misc]
                assert (await tracker.get(rid)).error_type == "worker_lost"
            assert (await tracker.inflight()).total == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _has_status(tracker: lifecycle.Tracker, rid: str, status: str) -> bool:
    return (await tracker.get(rid)).status == status


async def test_tail_prints_its_events_as_lines(settings: Settings) -> None:
    async def source() -> AsyncIterator[Any]:
        yield {"step": 1}
        yield "text"
        yield 3

    async with connect(settings) as tracker, await tracker.track(source(), model="m", id="tailed") as run:
        assert [event async for event in run] == [{"step": 1}, "text", 3]
    tail = "import sys; from lifecycle.cli.main import main; sys.argv = ['lifecycle', 'tail', 'tailed']; main()"
    flags = as_environment(settings)
    process = await start_python(tail, env=flags)
    assert process.stdout is not None
    assert await process.stdout.read() == b'{"step":1}\n"text"\n3\n'
    assert await process.wait() == 0


async def test_a_fenced_tracker_ends_its_sources_and_comes_back(settings: Settings, store: Store) -> None:
    source = Source(pause_secs=0.005)
    async with connect(settings) as here, connect(settings) as there:
        run = await here.track(source.events(), model="m", id="fenced", on_disconnect="continue")
        await anext(run.events())
        for shard in range(settings.shards):
            await store.expire(shard, here.id)  # as when its heartbeats had not come
        await wait_until(lambda: _has_status(there, "fenced", "failed"))
        assert (await there.get("fenced")).error_type == "worker_lost"
        await asyncio.wait_for(source.closed.wait(), 5)

        async def tracks_again() -> bool:
            try:
                async with await here.track(Source(3).events(), model="m") as again:
                    assert [event async for event in again] == [1, 2, 3]
            except lifecycle.Unavailable:
                return False
            record = await there.get(again.id)
            assert record.frontend == record.worker == f"{here.id}~1"
            return True

        await wait_until(tracks_again)
        assert (await there.inflight()).total == 0
        await run.aclose()


async def test_what_redis_has_lost_ends_here(settings: Settings, store: Store) -> None:
    source = Source(pause_secs=0.005)
    async with connect(settings) as tracker:
        run = await tracker.track(source.events(), model="m", id="lost")
        events = run.events()
        await anext(events)
        keys = [key async for page in store.scan(f"{settings.namespace}:*", 1000) for key in page]
        await store.command("DEL", *keys)
        with pytest.raises(lifecycle.RequestFailed) as failure:
            async for _ in events:
                pass
        assert failure.value.error_type == "state_lost"
        await asyncio.wait_for(source.closed.wait(), 5)
