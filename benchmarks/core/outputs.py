"""Measure a very long output: its appends, the memory of its stream, a resume from its start, and its end."""

from __future__ import annotations

import time

from benchmarks.core import bench
from benchmarks.core.table import Table
from lifecycle.store.connect import open_store
from lifecycle.store.transitions import Store
from lifecycle.tokens.history import read_history
from lifecycle.tokens.items import Tokens
from lifecycle.types import Role
from tests.joining import join

_RID = "long"


async def measure(quick: bool) -> list[Table]:
    """Write one request's tokens one by one, read them all again, and end the request."""
    count = 2_000 if quick else 100_000
    table = Table(f"An output of {count:,} tokens, one an entry", ("step", "figure"))
    with bench.server() as redis:
        async with open_store(bench.settings_for(redis.url)) as store:
            await join(store, bench.FRONTEND, Role.FRONTEND, {}, [])
            await bench.admit(store, _RID)
            await bench.start_queued(store, 1)
            began = time.perf_counter()
            await bench.stream(store, _RID, count)
            table.add("appends, s", time.perf_counter() - began)
            size = await store.command("MEMORY", "USAGE", store.keys.prefix_of(_RID) + "tokens:" + _RID)
            table.add("memory of the stream, MB", int(size) / 1e6)
            began = time.perf_counter()
            pages = await _resume(store, count)
            table.add("resume from the start, s", time.perf_counter() - began)
            table.add("pages of it", pages)
            began = time.perf_counter()
            await bench.complete(store, _RID, count)
            table.add("finish, ms", (time.perf_counter() - began) * 1000)
    return [table]


async def _resume(store: Store, count: int) -> int:
    """Return the number of pages. Raises RuntimeError when a token is missing."""
    found, after, pages = 0, "0-0", 0
    while True:
        page = await read_history(store, _RID, after)
        pages += 1
        found += sum(len(item.events) for item in page.items if isinstance(item, Tokens))
        if page.exhausted:
            break
        after = page.next_id
    if found != count:
        raise RuntimeError(f"a resume brought {found} of {count} tokens")
    return pages
