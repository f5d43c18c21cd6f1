"""A failover loses the start of a request whose first tokens a client has read already; another worker starts it anew.

Both attempts have the number 1, so nothing tells their tokens apart: the client gets the first tokens of one worker
and the later ones of the other, as one completed answer. Expected: such a stream ends with an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.ids import TokenId
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.tokens.items import End
from lifecycle.tracking.tracker import Tracker
from tests.chaos.proxy import FaultProxy
from tests.known_faults.core.replicas import (
    Engine,
    Reading,
    call,
    dump_shard,
    frontend,
    quick_settings,
    reading,
    restore_shard,
    worker,
)
from tests.servers import ask
from tests.waiting import wait_until

_RID = "r1"
_READ = 5  # tokens of the first attempt that the client has read before the failover
_LEASE_SECS = 30.0  # nobody is taken for dead within the test


def _engine(name: str, count: int, go_on: asyncio.Event) -> Engine:
    async def generate(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        for number in range(1, count + 1):
            yield f"{name}{number} "
        await go_on.wait()

    return generate


@asynccontextmanager
async def _after_the_failover() -> AsyncIterator[tuple[Tracker, Reading, asyncio.Event]]:
    """A client has read A1 to A5, the start behind them is lost, and B has written B1 to B8.

    Yields the frontend, its client's reader, and an event that lets B end.
    """
    b_may_end, never = asyncio.Event(), asyncio.Event()
    common: dict[str, Any] = {"lease_secs": _LEASE_SECS, "queue_without_workers": True, "drain_timeout_secs": 0.0}
    with EmbeddedRedis(port=0) as server:
        async with (
            FaultProxy(server.url) as to_frontend,
            FaultProxy(server.url) as to_a,
            frontend(quick_settings(to_frontend.url, **common)) as tracker,
        ):
            prefix = tracker.store.keys.prefixes[0]
            flight = await tracker.admit(call(_RID))
            before_the_start = dump_shard(server, prefix)
            async with (
                reading(flight.reader) as live,
                worker(quick_settings(to_a.url, **common), _engine("A", _READ, never)),
            ):
                await live.got(_READ)
                to_frontend.cut()
                to_a.cut()
                restore_shard(server, prefix, before_the_start)
                async with worker(quick_settings(server.url, **common), _engine("B", _READ + 3, b_may_end)):
                    await wait_until(lambda: int(ask(server, "XLEN", f"{prefix}tokens:{_RID}")) >= 2)
                    to_frontend.restore()
                    await wait_until(lambda: to_frontend.links >= 2, what="a frontend that is connected again")
                    yield tracker, live, b_may_end
                    to_a.restore()


def _assert_not_spliced(text: str, end: End) -> None:
    assert end.status != "completed", f"the client got {text!r}, completed"


async def test_a_live_reader_is_not_given_two_attempts_as_one_answer() -> None:
    async with _after_the_failover() as (_, live, b_may_end):
        b_may_end.set()

        end = await live.ended()

        _assert_not_spliced(live.text, end)


async def test_a_resumed_reader_is_not_given_two_attempts_as_one_answer() -> None:
    async with _after_the_failover() as (tracker, live, b_may_end):
        opened = await tracker.open_reader(_RID, TokenId(1, _READ))
        assert opened is not None
        read_before = "".join(live.texts[:_READ])
        async with reading(opened[1]) as resumed:
            b_may_end.set()

            end = await resumed.ended()

        _assert_not_spliced(read_before + resumed.text, end)


@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed", "not noticed yet"])
async def test_a_request_that_gets_the_id_of_a_lost_one_is_not_read_on_from_a_position_of_that(
    is_noticed: bool,
) -> None:
    runs = iter(("A", "B"))

    async def generate(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        name = next(runs)
        for number in range(1, _READ + (4 if name == "B" else 1)):
            yield f"{name}{number} "
        if name == "A":
            await asyncio.Event().wait()

    common: dict[str, Any] = {"lease_secs": _LEASE_SECS, "queue_without_workers": True, "drain_timeout_secs": 0.0}
    with EmbeddedRedis(port=0) as server:
        if not is_noticed:
            common["heartbeat_secs"] = _LEASE_SECS / 3
        settings = quick_settings(server.url, **common)
        async with frontend(settings) as first, frontend(settings) as second, worker(settings, generate):
            prefix = first.store.keys.prefixes[0]
            before_the_admission = dump_shard(server, prefix)
            flight = await first.admit(call(_RID))
            async with reading(flight.reader) as live:
                await live.got(_READ)
                restore_shard(server, prefix, before_the_admission)
                key = f"{prefix}lost_start:{_RID}"
                if is_noticed:
                    await wait_until(lambda: ask(server, "GET", key) is not None, what="a lost start that is told")
                again = await second.admit(call(_RID))
                async with reading(again.reader) as whole:
                    await whole.ended()
                opened = await second.open_reader(_RID, TokenId(1, _READ))
                assert opened is not None
                async with reading(opened[1]) as resumed:
                    end = await resumed.ended()

        _assert_not_spliced("".join(live.texts[:_READ]) + resumed.text, end)
