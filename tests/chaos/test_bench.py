"""The bench itself: what the invariant checker is for is seen when it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from tests.chaos.bench import open_bench
from tests.chaos.invariants import Invariants, Violated
from tests.chaos.signatures import text_of
from tests.chaos.snapshot import read_shard
from tests.sse import chat, error_of

Spoil = Callable[[Store, str], Awaitable[None]]


async def test_a_healthy_cluster_violates_nothing(settings: Settings, tmp_path: Path) -> None:
    async with open_bench(settings, tmp_path, frontends=2) as bench:
        async with bench.post(bench.frontends[0], chat("a b c d"), "r1", X_On_Disconnect="continue") as stream:
            await stream.read_tokens(2)
        async with bench.resume(bench.frontends[1], "r1", "1-2") as stream:
            events = await stream.read()
        assert (text_of(events), error_of(events)) == (" c d", None)
        assert [reading.over for reading in bench.invariants.readings] == [True, True]
        assert bench.invariants.polls > 0
    assert [record.status for record in bench.invariants.ended.values()] == ["completed"]


async def test_a_checker_that_could_not_look_fails_the_test(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, failed = 0, asyncio.Event()

    async def fails_once(self: Invariants) -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            failed.set()
            raise ZeroDivisionError
        return True

    monkeypatch.setattr(Invariants, "look", fails_once)
    with pytest.raises(ZeroDivisionError):
        async with Invariants(store):
            await failed.wait()


async def _ends_twice(store: Store, prefix: str) -> None:
    await store.commands.execute("HSET", prefix + "request:r1", "status", "failed")


async def _is_counted_twice(store: Store, prefix: str) -> None:
    field = '["echo","chat_completions","stream","success",""]'
    await store.commands.execute("HINCRBY", prefix + "totals", field, 1)


async def _steps_back(store: Store, prefix: str) -> None:
    field = '["echo","chat_completions","stream","success",""]'
    await store.commands.execute("HINCRBY", prefix + "totals", field, -1)


async def _grows_after_its_end(store: Store, prefix: str) -> None:
    key = prefix + "tokens:r1"
    await store.commands.execute("XDEL", key, "1-1")


async def _is_counted_for_ever(store: Store, prefix: str) -> None:
    frontend = next(entry.id for entry in (await store.roster()).replicas if entry.role == "frontend")
    labels = '["echo","chat_completions","stream"]'
    for counts in (f"counts:{frontend}", "group_counts"):
        await store.commands.execute("HINCRBY", prefix + counts, labels, 1)


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (_ends_twice, "had ended as"),
        (_is_counted_twice, "seen to end were"),
        (_steps_back, "stepped back"),
        (_grows_after_its_end, "had ended as"),
        (_is_counted_for_ever, "is counted as"),
    ],
)
async def test_what_must_never_be_seen_is_seen(settings: Settings, tmp_path: Path, spoil: Spoil, seen: str) -> None:
    started_at = time.monotonic()
    with pytest.raises(Violated, match=seen):
        async with open_bench(settings, tmp_path, settle_secs=0.5) as bench:
            async with bench.post(bench.frontends[0], chat("a b"), "r1") as stream:
                await stream.read()
            await bench.invariants.look()
            await spoil(bench.store, bench.key(""))
            await bench.invariants.look()
    assert time.monotonic() - started_at < 60


async def test_what_is_left_inflight_is_seen(store: Store) -> None:
    with pytest.raises(Violated, match="still inflight"):
        async with Invariants(store, settle_secs=0.2):
            await store.commands.execute("ZADD", store.keys.prefixes[0] + "created", 1, "r1")
            key = store.keys.prefixes[0] + "request:r1"
            await store.commands.execute("HSET", key, "status", "running", "worker", "w", "frontend", "f")
    await store.commands.execute("DEL", key, store.keys.prefixes[0] + "created")


async def test_a_record_in_its_last_second_counts_as_expired(store: Store) -> None:
    """The stream of a request whose slot has moved may expire some milliseconds before the record."""
    key = store.keys.prefixes[0] + "request:r1"
    await store.commands.execute("ZADD", store.keys.prefixes[0] + "created", 1, "r1")
    await store.commands.execute("HSET", key, "status", "completed", "worker", "w", "frontend", "f")
    found = []
    for left_ms in (60_000, 900):
        await store.commands.execute("PEXPIRE", key, left_ms)
        found.append(set((await read_shard(store, 0)).records))
    assert found == [{"r1"}, set()]
    await store.commands.execute("DEL", key, store.keys.prefixes[0] + "created")
