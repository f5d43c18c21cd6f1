"""A frontend stands still for longer than its lease, and another one takes its requests over.

Back again, it counts each of them as ended with an error; its new owner counts the same requests when they
really end. The
series of all processes are added up. Expected: a request counts once, whatever becomes of its frontends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from tests.conftest import MakeSettings
from tests.known_faults.core.kit import counted, ended, heartbeats, record_of
from tests.known_faults.core.replicas import call, frontend, reading, served, worker
from tests.waiting import wait_until


async def test_a_request_that_was_taken_over_from_a_fenced_frontend_counts_once(make_settings: MakeSettings) -> None:
    go_on = asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "a"
        await go_on.wait()
        yield "b"

    settings = make_settings(concurrency=4)
    async with frontend(settings) as first, frontend(settings) as new_owner, worker(settings, engine):
        await served(first)
        flight = await first.admit(call("r1"))
        async with reading(flight.reader) as client:
            await client.got(1)
            fenced = first.id
            await first.store.expire(0, fenced)  # which is what everybody does once its lease is over
            await wait_until(lambda: first.lease.ids[0] != fenced, what="a new identity of the fenced frontend")

            async def is_taken_over() -> bool:
                return (await record_of(new_owner.store, "r1")).frontend != fenced

            await wait_until(is_taken_over, what="a new owner of the request")
            go_on.set()
            await wait_until(lambda: ended(new_owner.store, "r1"), what="the end of the request")
            await wait_until(lambda: len(new_owner.owned) == 0 and len(first.owned) == 0, what="idle frontends")
            await heartbeats(new_owner.store, new_owner.id, 2)

    assert counted([first, new_owner]) == (1, 1)


@pytest.mark.parametrize("tokens", [0, 40])
async def test_a_request_that_goes_on_under_the_next_id_of_its_frontend_counts_once(
    make_settings: MakeSettings, tokens: int
) -> None:
    """There is no other frontend. The request ends soon after it was taken over, or before that."""
    go_on = asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "a"
        await go_on.wait()
        for _ in range(tokens):
            yield "b"
            await asyncio.sleep(0.02)

    settings = make_settings(concurrency=4)
    async with frontend(settings) as alone, worker(settings, engine):
        await served(alone)
        flight = await alone.admit(call("r1"))
        async with reading(flight.reader) as client:
            await client.got(1)
            fenced = alone.id
            await alone.store.expire(0, fenced)
            await wait_until(lambda: alone.lease.ids[0] != fenced, what="a new identity of the fenced frontend")
            go_on.set()
            await wait_until(lambda: ended(alone.store, "r1"), what="the end of the request")
            await wait_until(lambda: counted([alone])[1] > 0, what="a count of the end")
            await wait_until(lambda: len(alone.owned) == 0, what="an idle frontend")
            await heartbeats(alone.store, alone.id, 6)

    assert counted([alone]) == (1, 1)
