"""Redis cannot write its snapshot for a moment, because the disk is full, and refuses every write with MISCONF.

Streams go on once the disk has room again, and an admission meanwhile is answered with "unavailable", which clients may
try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.known_faults.core.replicas import call, frontend, quick_settings, reading, served, worker
from tests.servers import ask, info
from tests.waiting import wait_until

_TOKENS = 100
_PAUSE_SECS = 0.02
_BEFORE = 10  # tokens until the disk is full


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    """Run a server that takes snapshots, and refuses writes when one has failed."""
    with EmbeddedRedis(port=0, config={"save": "3600 1"}) as running:
        yield running


@contextmanager
def _snapshots_cannot_be_written(server: EmbeddedRedis) -> Iterator[None]:
    """Put a directory in the place of the snapshot, so that the last step of writing one fails."""
    snapshot = server.directory / "dump.rdb"
    snapshot.unlink(missing_ok=True)
    (snapshot / "occupied").mkdir(parents=True)
    try:
        yield
    finally:
        (snapshot / "occupied").rmdir()
        snapshot.rmdir()


async def _take_snapshot(server: EmbeddedRedis, outcome: str) -> None:
    """Take one, and wait for its outcome: `ok` or `err`."""
    ask(server, "BGSAVE")
    await wait_until(lambda: info(server, "persistence")["rdb_last_bgsave_status"] == outcome)


def _refusals(server: EmbeddedRedis) -> int:
    values = info(server, "errorstats").get("errorstat_MISCONF", "count=0")
    return int(values.removeprefix("count="))


async def _engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    for number in range(_TOKENS):
        yield f"{number} "
        await asyncio.sleep(_PAUSE_SECS)


async def test_a_stream_goes_on_after_redis_has_refused_writes_for_a_moment(server: EmbeddedRedis) -> None:
    settings = quick_settings(server.url)
    async with frontend(settings) as tracker, worker(settings, _engine):
        await served(tracker)
        flight = await tracker.admit(call("r1"))
        async with reading(flight.reader) as client:
            await client.got(_BEFORE)
            with _snapshots_cannot_be_written(server):
                await _take_snapshot(server, "err")
                await wait_until(lambda: _refusals(server) >= 1, what="a refused write")
            await _take_snapshot(server, "ok")

            end = await client.ended()

        assert (end.status, end.error_type) == ("completed", "")
        assert client.text == "".join(f"{number} " for number in range(_TOKENS))


async def test_an_admission_meanwhile_is_unavailable(server: EmbeddedRedis) -> None:
    async with frontend(quick_settings(server.url, queue_without_workers=True)) as tracker:
        with _snapshots_cannot_be_written(server):
            await _take_snapshot(server, "err")

            with pytest.raises(StoreUnavailable):
                await tracker.admit(call("r1"))

        await _take_snapshot(server, "ok")
