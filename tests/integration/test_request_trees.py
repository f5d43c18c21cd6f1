"""Request trees: what ends a request also ends the requests that it has started, on any replica and shard."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

import lifecycle
from lifecycle.cli.why import tree_lines
from lifecycle.queries import timeline, tree
from lifecycle.replica.parent_checks import ParentChecks
from lifecycle.settings import Settings, as_environment
from lifecycle.store.request_trees import CHILDREN_LIMIT, DEPTH_LIMIT, Child
from lifecycle.store.transitions import Store
from tests.conftest import MakeSettings
from tests.library import connect, start_python
from tests.waiting import wait_until


async def endless(context: lifecycle.EngineContext) -> AsyncIterator[int]:
    """Count until it is stopped."""
    number = 0
    while not context.is_stopped:
        number += 1
        yield number
        await asyncio.sleep(0.005)


async def brief() -> AsyncIterator[int]:
    """Yield one event."""
    yield 1


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(shards=4)


def has_status(tracker: lifecycle.Tracker, rid: str, status: str) -> Callable[[], Awaitable[Any]]:
    async def look() -> Any:
        record = await tracker.get(rid)
        return record if record.status == status else None

    return look


async def run_of(
    stack: AsyncExitStack, tracker: lifecycle.Tracker, rid: str, source: Any = endless, **more: Any
) -> lifecycle.Run:
    return await stack.enter_async_context(
        await tracker.track(source if source is endless else source(), model="m", id=rid, **more)
    )


async def test_cancelling_the_parent_from_elsewhere_cancels_three_levels_on_two_replicas(settings: Settings) -> None:
    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await run_of(runs, there, "middle", parent="top", on_disconnect="continue")
        for number in range(8):  # in several shards
            await run_of(runs, (here, there)[number % 2], f"leaf-{number}", parent="middle", on_disconnect="continue")
        await there.cancel("top", reason="enough", wait_secs=5)
        for rid, parent in [("middle", "top"), *((f"leaf-{number}", "middle") for number in range(8))]:
            record = await wait_until(has_status(here, rid, "cancelled"))
            assert (record.parent, record.cancelled_by) == (parent, f"parent:{parent}")
            assert record.cancel_reason == f"Its parent, {parent}, was cancelled"
        assert (await here.inflight()).total == 0


@pytest.mark.parametrize("hint", ["lost", "heard"])
async def test_the_end_of_the_parent_reaches_its_children_with_and_without_a_hint(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, hint: str
) -> None:
    """The sweeps find what no message tells; and a message tells it before a sweep comes."""
    if hint == "lost":
        monkeypatch.setattr("lifecycle.tracking.parents.Parents._on_message", lambda *_: None)
    else:
        monkeypatch.setattr(ParentChecks, "check_due", _do_nothing)
    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await run_of(runs, there, "child", parent="top")
        await here.cancel("top", wait_secs=5)
        record = await wait_until(has_status(here, "child", "cancelled"))
        assert record.cancelled_by == "parent:top"


async def _do_nothing(*_: Any) -> None:
    pass


async def test_a_disconnect_or_a_failure_of_the_parent_cancels_its_children(settings: Settings) -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        await go.wait()
        raise ValueError("no")

    go = asyncio.Event()
    async with connect(settings) as here, AsyncExitStack() as runs:
        parent = await run_of(runs, here, "top")
        await run_of(runs, here, "child", parent="top")
        await parent.aclose()
        assert (await wait_until(has_status(here, "child", "cancelled"))).cancelled_by == "parent:top"
        await run_of(runs, here, "fails", failing)
        await run_of(runs, here, "orphan", parent="fails")
        go.set()
        record = await wait_until(has_status(here, "orphan", "cancelled"))
        assert record.cancel_reason == "Its parent, fails, failed"


async def test_a_parent_that_completes_leaves_its_children_alone(settings: Settings) -> None:
    go = asyncio.Event()

    async def until_told() -> AsyncIterator[int]:
        yield 1
        await go.wait()

    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        await run_of(runs, here, "top", until_told)
        await run_of(runs, there, "child", parent="top")
        go.set()
        await wait_until(has_status(here, "top", "completed"))
        checks = ParentChecks(there._core.store)
        for shard in range(settings.shards):
            await checks.check_due(shard)
        await run_of(runs, there, "late", parent="top")
        for rid in ("child", "late"):
            record = await there.get(rid)
            assert (record.status, record.parent) == ("running", "top")


@pytest.mark.parametrize("end", ["completed", "stopped", "failed"])
async def test_what_became_of_the_parent_is_known_when_its_record_has_expired(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """No message tells of the end, and nobody looks before the retention is over."""
    check_due = ParentChecks.check_due
    monkeypatch.setattr("lifecycle.tracking.parents.Parents._on_message", lambda *_: None)
    monkeypatch.setattr(ParentChecks, "check_due", _do_nothing)
    go = asyncio.Event()

    async def until_told(context: lifecycle.EngineContext) -> AsyncIterator[int]:
        yield 1
        await go.wait()
        if end == "failed":
            raise ValueError("no")

    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        await runs.enter_async_context(await here.track(until_told, model="m", id="top"))
        await run_of(runs, there, "child", parent="top")
        if end == "stopped":
            await there.cancel("top", mode="stop")
        go.set()

        await wait_until(has_status(here, "top", "failed" if end == "failed" else "completed"))
        store = there._core.store
        prefix = store.keys.prefix_of("top")
        assert await store.command("PTTL", prefix + "ended_parent:top") > 3_000_000
        await store.command("DEL", prefix + "request:top")  # as a short retention does
        for shard in range(settings.shards):
            await check_due(ParentChecks(store), shard)
        record = await there.get("child")
        if end == "completed":
            assert (record.status, record.cancel_mode) == ("running", None)
        elif end == "stopped":
            assert (record.cancel_mode, record.cancel_reason) == ("stop", "Its parent, top, is being stopped")
        else:
            assert (record.cancel_mode, record.cancel_reason) == ("kill", "Its parent, top, failed")


async def test_a_stop_of_the_parent_stops_its_children(settings: Settings) -> None:
    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await run_of(runs, there, "child", parent="top")
        await there.cancel("top", mode="stop", wait_secs=5)
        record = await wait_until(has_status(here, "child", "completed"))
        assert (record.cancel_mode, record.cancelled_by) == ("stop", "parent:top")


@pytest.mark.parametrize("mode", ["kill", "stop"])
async def test_a_child_of_a_parent_that_was_cancelled_is_refused_and_its_source_closed(
    settings: Settings, mode: str
) -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    async with connect(settings) as here, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await here.cancel("top", mode=mode, wait_secs=5)
        events = source()
        with pytest.raises(lifecycle.Conflict, match="'top' has ended or is being cancelled"):
            await here.track(events, model="m", id="child", parent="top")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        with pytest.raises(lifecycle.NotFound):
            await here.get("child")


async def test_a_repeated_call_that_is_refused_leaves_the_first_one_in_the_tree(settings: Settings) -> None:
    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await run_of(runs, here, "child", parent="top")
        await here.cancel("top", wait_secs=5)
        await wait_until(has_status(here, "child", "cancelled"))
        with pytest.raises(lifecycle.Conflict, match="is in use"):
            await there.track(brief(), model="m", id="child", parent="top")
        await there._core._background.wait(5)
        shown = await tree.read(here._core.store, "top")
        assert shown is not None
        assert [node.record.id for node in shown.nodes] == ["top", "child"]


async def test_an_unknown_parent_and_that_of_another_owner_are_not_found(settings: Settings) -> None:
    async with connect(settings) as here, AsyncExitStack() as runs:
        await run_of(runs, here, "top", owner="acme")
        for parent, owner in (("nobody", ""), ("top", "other")):
            with pytest.raises(lifecycle.NotFound, match=f"parent '{parent}'"):
                await here.track(brief(), model="m", owner=owner, parent=parent)
        with pytest.raises(lifecycle.InvalidValue, match="a parent"):
            await here.track(brief(), model="m", parent="a parent")
        await run_of(runs, here, "own", owner="acme", parent="top")
        await run_of(runs, here, "trusted", parent="top")


async def test_no_request_is_its_own_parent_or_the_parent_of_an_older_one(settings: Settings, store: Store) -> None:
    async with connect(settings) as here, AsyncExitStack() as runs:
        with pytest.raises(lifecycle.NotFound):
            await here.track(brief(), model="m", id="self", parent="self")
        await run_of(runs, here, "a", brief)
        await wait_until(has_status(here, "a", "completed"))
        await run_of(runs, here, "b", parent="a")
        own = here._core.store
        await own.command("DEL", own.keys.prefix_of("a") + "request:a", own.keys.prefix_of("a") + "tokens:a")
        await run_of(runs, here, "a", parent="b")
        shown = await tree.read(own, "b")
        assert shown is not None
        assert [node.record.id for node in shown.nodes] == ["b", "a"]
        await here.cancel("b", wait_secs=5)
        await wait_until(has_status(here, "a", "cancelled"))


async def test_a_parent_whose_id_is_used_again_is_another_request(settings: Settings) -> None:
    async with connect(settings) as here, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await run_of(runs, here, "child", parent="top")
        own = here._core.store
        prefix = own.keys.prefix_of("top")
        await own.command("HSET", prefix + "request:top", "created_at", "1.000000")
        await own.command("ZADD", own.keys.prefix_of("child") + "with_parent", 0, "child")
        record = await wait_until(has_status(here, "child", "cancelled"))
        assert record.cancel_reason == "Its parent, top, was lost"


async def test_what_the_parents_shard_has_lost_does_not_save_its_children(settings: Settings) -> None:
    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        for rid, parent in (("top", None), ("listed", "top"), ("root", None), ("child", "root")):
            await run_of(runs, (here, there)[rid in ("listed", "child")], rid, parent=parent)
        own = here._core.store
        await own.command("DEL", own.keys.prefix_of("top") + "children:top")
        await here.cancel("top", wait_secs=5)
        await wait_until(has_status(there, "listed", "cancelled"))
        prefix = own.keys.prefix_of("root")
        await own.command("DEL", *(f"{prefix}{key}:root" for key in ("request", "tokens", "readers", "children")))
        await own.command("ZREM", prefix + "active", "root")
        await own.command("ZREM", prefix + "created", "root")
        record = await wait_until(has_status(there, "child", "cancelled"))
        assert record.cancel_reason == "Its parent, root, was lost"


async def test_looking_at_a_parent_twice_changes_nothing(settings: Settings) -> None:
    async with connect(settings) as here, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await run_of(runs, here, "child", parent="top")
        created_at = await here._core.store.command(
            "HGET", here._core.store.keys.prefix_of("top") + "request:top", "created_at"
        )
        checks, child = ParentChecks(here._core.store), Child("child", "top", created_at.decode())
        await checks.check([child])
        assert (await here.get("child")).cancel_requested_at is None
        await here.cancel("top", wait_secs=5)
        await asyncio.gather(*(checks.check([child, child]) for _ in range(3)))
        first = await wait_until(has_status(here, "child", "cancelled"))
        await checks.check([child])
        assert await here.get("child") == first
        found = await timeline.read(here._core.store, "child")
        assert found is not None
        assert [entry.what for entry in found.entries].count("cancel_requested") == 1


async def test_trees_are_bounded_in_depth_and_width(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect(settings) as here, AsyncExitStack() as runs:
        parent = None
        for level in range(DEPTH_LIMIT):
            await run_of(runs, here, f"level-{level}", parent=parent)
            parent = f"level-{level}"
        with pytest.raises(lifecycle.InvalidValue, match=f"{DEPTH_LIMIT} levels"):
            await here.track(brief(), model="m", parent=parent)

        own = here._core.store
        await run_of(runs, here, "wide")
        key = own.keys.prefix_of("wide") + "children:wide"
        await own.command("ZADD", key, *(part for n in range(CHILDREN_LIMIT) for part in (n, f"gone-{n}")))
        await run_of(runs, here, "one-more", parent="wide")  # those that have ended make room
        await own.command("DEL", key)
        await own.command("ZADD", key, *(part for n in range(CHILDREN_LIMIT) for part in (n, f"level-{n}")))
        monkeypatch.setattr(type(own), "read", _still_running(type(own).read))
        with pytest.raises(lifecycle.Overloaded, match=f"{CHILDREN_LIMIT:,} children"):
            await here.track(brief(), model="m", parent="wide")


def _still_running(read: Any) -> Any:
    async def read_as_running(store: Store, rid: str, **more: Any) -> Any:
        return await read(store, "wide" if rid.startswith("level-") else rid, **more)

    return read_as_running


PARENT = """
import asyncio, json, sys
import lifecycle

async def endless(context):
    number = 0
    while True:
        number += 1
        yield number
        await asyncio.sleep(0.01)

async def main():
    async with lifecycle.Tracker.connect(endpoint="agent") as tracker:
        async with await tracker.track(endless, model="m", id="top") as run:
            async for event in run:
                if event == 1:
                    print("started", flush=True)

asyncio.run(main())
"""


async def test_kill_9_of_the_parents_process_ends_children_elsewhere(make_settings: MakeSettings) -> None:
    settings = make_settings(shards=4, lease_secs=2.0, heartbeat_secs=0.5, sweep_secs=0.5)
    async with connect(settings) as here, connect(settings) as there, AsyncExitStack() as runs:
        process = await start_python(PARENT, env=as_environment(settings))
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        await run_of(runs, here, "child", parent="top", on_disconnect="continue")
        await run_of(runs, there, "grandchild", parent="child", on_disconnect="continue")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        killed_at = time.monotonic()
        for rid, parent in (("child", "top"), ("grandchild", "child")):
            record = await wait_until(has_status(there, rid, "cancelled"), timeout=15)
            assert record.cancelled_by == f"parent:{parent}"
        assert time.monotonic() - killed_at < 2.0 + 0.5 + 2.0
        top = await there.get("top")
        assert (top.status, top.error_type) == ("failed", "worker_lost")
        assert (await there.get("child")).cancel_reason == "Its parent, top, was lost"


async def test_the_timeline_and_the_tree_show_the_children(settings: Settings) -> None:
    async with connect(settings) as here, AsyncExitStack() as runs:
        await run_of(runs, here, "top")
        await run_of(runs, here, "child", parent="top")
        await run_of(runs, here, "grandchild", parent="child")
        with pytest.raises(lifecycle.Conflict):
            await here.track(brief(), model="m", id="top", parent="child")
        found = await timeline.read(here._core.store, "top")
        assert found is not None
        assert [entry.details["child"] for entry in found.entries if entry.what == "child_started"] == ["child"]
        for rid, place in (("top", 0), ("child", 1), ("grandchild", 2)):
            shown = await tree.read(here._core.store, rid)
            assert shown is not None
            assert [(node.record.id, node.depth) for node in shown.nodes] == [
                ("top", 0),
                ("child", 1),
                ("grandchild", 2),
            ]
            assert tree_lines(shown, rid)[place] == f"{'  ' * (place + 1)}{rid}  running  <- this request"
        assert await tree.read(here._core.store, "top", lambda owner: owner == "another") is None
