"""A failover loses tokens from the middle of a stream: the replica that becomes primary has missed the last writes.

The worker's next tokens are taken behind the hole, and its end compares the last number only, so the request is
`completed` without the lost tokens. Expected: an answer that is completed is whole; a request that has lost tokens ends
with an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.known_faults.core.kit import ended, record_of
from tests.known_faults.core.replicas import (
    call,
    dump_shard,
    frontend,
    quick_settings,
    reading,
    restore_shard,
    served,
    worker,
)
from tests.waiting import wait_until


async def test_an_answer_that_has_lost_tokens_in_a_failover_is_not_completed() -> None:
    kept, lost, heard = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        for text in "ab":
            yield text
        await kept.wait()
        for text in "cde":
            yield text
        await lost.wait()
        for text in "fg":
            yield text
        await heard.wait()

    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as tracker, worker(settings, engine):
            await served(tracker)
            store = tracker.store
            prefix = store.keys.prefixes[0]
            flight = await tracker.admit(call("r1"))
            async with reading(flight.reader) as client:
                await client.got(2)
                dumped = dump_shard(server, prefix)
                kept.set()
                await client.got(5)
                restore_shard(server, prefix, dumped)
                lost.set()
                await wait_until(lambda: len(client.texts) == 7 or client.end, what="the last tokens, or an error")
                heard.set()
                await wait_until(lambda: ended(store, "r1"), what="the end of the request")

            opened = await tracker.open_reader("r1")
            assert opened is not None
            async with reading(opened[1]) as later:
                await later.ended()
            record = await record_of(store, "r1")
            assert (record.status, later.text) == ("completed", "abcdefg") or record.status == "failed"
