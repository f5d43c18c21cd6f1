"""A replica whose lease has expired in a shard comes back there at once, and is one replica under all its ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from lifecycle.errors import Fenced
from lifecycle.execution.context import EngineContext
from lifecycle.ids import START, replica_of
from lifecycle.queries import cluster
from lifecycle.types import Role
from tests.conftest import MakeSettings
from tests.known_faults.core.kit import ended, record_of
from tests.known_faults.core.replicas import call, frontend, reading, served, worker
from tests.waiting import wait_until

LONG = {"heartbeat_secs": 60.0, "lease_secs": 240.0, "shards": 1}
"""No heartbeat comes by itself within a test."""


@pytest.mark.leaves_inflight
async def test_a_frontend_that_is_fenced_at_an_admission_comes_back_at_once(make_settings: MakeSettings) -> None:
    async with frontend(make_settings(**LONG)) as fenced:
        before = fenced.lease.ids[0]
        await fenced.store.expire(0, before)
        with pytest.raises(Fenced):
            await fenced.admit(call("r1"))
        await wait_until(lambda: fenced.lease.ids[0] != before, what="a new id, without waiting for a heartbeat")
        flight = await fenced.admit(call("r2"))
        assert (await record_of(fenced.store, flight.rid)).frontend == f"{fenced.id}~1"


@pytest.mark.leaves_inflight
async def test_a_frontend_that_is_fenced_at_a_resume_comes_back_at_once(make_settings: MakeSettings) -> None:
    async with frontend(make_settings(**LONG)) as owner, frontend(make_settings(**LONG)) as fenced:
        await owner.admit(call("r1"))
        before = fenced.lease.ids[0]
        await fenced.store.expire(0, before)
        with pytest.raises(Fenced):
            await fenced.attach("r1", START)
        await wait_until(lambda: fenced.lease.ids[0] != before, what="a new id, without waiting for a heartbeat")
        assert await fenced.attach("r1", START) is not None


async def test_listings_find_what_a_replica_holds_under_any_of_its_ids(make_settings: MakeSettings) -> None:
    go_on = asyncio.Event()

    async def engine(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "a"
        await go_on.wait()

    settings = make_settings(concurrency=4, shards=1)
    async with frontend(settings) as tracker, worker(settings, engine) as serving:
        await served(tracker)
        for replica, role in ((tracker.id, Role.FRONTEND), (serving.id, Role.WORKER)):
            await tracker.store.expire(0, replica)
            ask = partial(tracker.store.command, "ZSCORE", f"{tracker.store.keys.prefixes[0]}{role}s", f"{replica}~1")
            await wait_until(ask, what=f"a lease of {replica}~1")
        flight = await tracker.admit(call("r1"))
        async with reading(flight.reader) as client:
            await client.got(1)
            record = await record_of(tracker.store, "r1")
            assert (record.frontend, record.worker) == (f"{tracker.id}~1", f"{serving.id}~1")
            for name in (tracker.id, f"{tracker.id}~1"):
                found, _ = await cluster.list_requests(tracker.store, cluster.Filter(frontend=name), 10)
                assert [one.id for one in found] == ["r1"], f"the requests of {name}"
            for name in (serving.id, f"{serving.id}~1"):
                found, _ = await cluster.list_requests(tracker.store, cluster.Filter(worker=name), 10)
                assert [one.id for one in found] == ["r1"], f"the requests of {name}"
            for other in (replica_of(tracker.id)[:-1], f"{tracker.id}0"):
                assert await cluster.list_requests(tracker.store, cluster.Filter(frontend=other), 10) == ([], False)
            living = {replica.id: replica.inflight for replica in await cluster.replicas(tracker.store)}
            assert living == {tracker.id: 1, serving.id: 1}
            go_on.set()
            await wait_until(lambda: ended(tracker.store, "r1"), what="the end of the request")
