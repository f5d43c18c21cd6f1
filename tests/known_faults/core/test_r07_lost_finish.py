"""A failover loses the end of a request that its worker has reported and its client has heard of.

The worker knows how the request ended, but gives it back as one that it never held: with tokens it fails as
`worker_lost`, without any it runs again. And its frontend, which finds it among its own again, counts it twice.
Expected: the end is reported again, the engine runs once, and the request counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.types import RequestRecord
from tests.known_faults.core.kit import counted, ended, heartbeats, record_of
from tests.known_faults.core.replicas import (
    call,
    dump_shard,
    frontend,
    quick_settings,
    restore_shard,
    served,
    worker,
)
from tests.waiting import wait_until

_TOKENS, _NO_TOKENS = "with-tokens", "without-tokens"


@dataclass(slots=True)
class _Seen:
    """The state of the requests after the loss."""

    runs: list[str] = field(default_factory=list)
    records: dict[str, RequestRecord] = field(default_factory=dict)
    started: int = 0
    ended: int = 0


async def _lose_the_end(rid: str) -> _Seen:
    """Run a request to its end, lose that end, and wait until the request has ended again."""
    seen, go_on = _Seen(), asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        seen.runs.append(context.id)
        if context.id == _TOKENS:
            yield "a"
        await go_on.wait()
        yield "b"

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, engine):
            store = tracker.store
            prefix = store.keys.prefixes[0]
            await served(tracker)
            await tracker.admit(call(rid))

            async def is_running() -> bool:
                record = await record_of(store, rid)
                return bool(seen.runs) and record.output_tokens == (1 if rid == _TOKENS else 0)

            await wait_until(is_running, what="a running request")
            dumped = dump_shard(server, prefix)
            go_on.set()
            await wait_until(lambda: ended(store, rid), what="the first end")
            await wait_until(lambda: counted([tracker])[1] == 1, what="the first end's count")

            restore_shard(server, prefix, dumped)
            assert not await ended(store, rid)
            await wait_until(lambda: ended(store, rid), what="the second end")
            await wait_until(lambda: len(tracker.owned) == 0, what="a frontend without requests")
            await heartbeats(store, tracker.id, 2)
            seen.records[rid] = await record_of(store, rid)
            seen.started, seen.ended = counted([tracker])
    return seen


async def test_a_completed_request_whose_end_was_lost_is_completed_again() -> None:
    seen = await _lose_the_end(_TOKENS)
    assert seen.records[_TOKENS].status == "completed"


async def test_a_completed_request_whose_end_was_lost_does_not_run_again() -> None:
    seen = await _lose_the_end(_NO_TOKENS)
    assert seen.runs == [_NO_TOKENS]


@pytest.mark.parametrize("rid", [_TOKENS, _NO_TOKENS])
async def test_a_request_whose_end_was_lost_counts_once(rid: str) -> None:
    seen = await _lose_the_end(rid)
    assert (seen.started, seen.ended) == (1, 1)
