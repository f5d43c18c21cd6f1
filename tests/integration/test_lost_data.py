"""Redis lost its data: who has lost what is told within about a heartbeat, and what comes next is served at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from lifecycle.aio import tasks
from lifecycle.cli.doctor.cluster import check_cluster
from lifecycle.errors import Fenced
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import cluster
from lifecycle.replica.lease import Lease
from lifecycle.settings import Settings
from lifecycle.store.results import PendingCancellation
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.cluster import running
from tests.conftest import MakeSettings, connect
from tests.edge import edge_server
from tests.sse import chat, error_of, post, text_of
from tests.unit.world import World
from tests.waiting import wait_until


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


class Noting:
    """A holder that keeps what it is told."""

    def __init__(self) -> None:
        self.rids: list[str] = []
        self.heartbeats = 0
        self.told: list[tuple[str, Any]] = []

    def held(self, shard: int) -> Collection[str]:
        return self.rids

    def about(self) -> dict[str, Any]:
        self.heartbeats += 1
        return {}

    async def on_pending_cancellations(self, orders: Sequence[PendingCancellation]) -> None:
        self.told.append(("orders", orders))

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        self.told.append(("lost", sorted(rids)))

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        self.told.append(("not_held_locally", sorted(rids)))

    async def on_new_epoch(self, shard: int) -> None:
        self.told.append(("new epoch", shard))

    async def on_data_lost(self, shard: int) -> None:
        self.told.append(("data lost", shard))

    def on_fenced(self, shard: int, expired: str, cause: Fenced) -> None:
        raise AssertionError


@pytest.fixture
async def store(server: EmbeddedRedis, make_settings: MakeSettings) -> AsyncIterator[Store]:
    settings = make_settings(redis_url=server.url, lease_secs=60.0, heartbeat_secs=0.1)
    store = Store(connect(settings), settings)
    yield store
    await store.commands.aclose()


async def test_the_first_heartbeat_after_a_loss_tells_what_is_lost(store: Store) -> None:
    """Before it there was a comparison already, and the next would be due a lease later."""
    holder = Noting()
    lease = Lease(store, Role.FRONTEND, holder)
    await lease.join(1)
    world = World(store)
    await world.open()
    await world.admit("kept", frontend=lease.id)
    holding = asyncio.create_task(lease.run())
    try:
        await wait_until(lambda: ("not_held_locally", ["kept"]) in holder.told)
        holder.rids = ["kept", "lost"]
        heartbeats = holder.heartbeats
        await wait_until(lambda: holder.heartbeats > heartbeats + 4)
        assert not [what for what, _ in holder.told if what == "lost"], "a comparison once a lease"
        await store.command("FLUSHALL")
        heartbeats = holder.heartbeats
        await wait_until(lambda: ("lost", ["kept", "lost"]) in holder.told)
        assert holder.heartbeats <= heartbeats + 3
        assert holder.told[-3:] == [("new epoch", 0), ("data lost", 0), ("lost", ["kept", "lost"])]
    finally:
        await tasks.end([holding])


async def test_a_replica_says_so_until_it_has_told_redis_what_it_holds(store: Store) -> None:
    class Failing(Noting):
        fails = True

        async def on_new_epoch(self, shard: int) -> None:
            if self.fails:
                raise RuntimeError("what it holds cannot be told")

    holder = Failing()
    lease = Lease(store, Role.WORKER, holder)
    await lease.join(1)
    holding = asyncio.create_task(lease.run())

    async def announced() -> tuple[int, ...]:
        return next((replica.reasserting for replica in await cluster.replicas(store)), ())

    async def finding() -> str:
        return next(str(found.level) for found in await check_cluster(store) if found.check == "reassertion")

    try:
        await wait_until(lambda: _knows(store, lease.id))
        assert (await announced(), await finding(), lease.reasserting) == ((), "ok", set())
        await store.command("FLUSHALL")

        async def says_so() -> bool:
            return await announced() == (0,)

        await wait_until(says_so)
        assert await finding() == "warn"
        holder.fails = False

        async def is_over() -> bool:
            return not lease.reasserting and await announced() == ()

        await wait_until(is_over)
        assert await finding() == "ok"
        lease.started_at -= 60  # it is no newcomer, which is given the time of some heartbeats
        await lease.announce()
        await tasks.end([holding])
        await store.command("DEL", store.keys.prefixes[0] + "ticks")
        assert await finding() == "warn", "nobody has noticed the loss yet"
    finally:
        await tasks.end([holding])


async def test_a_frontend_says_so_and_stays_ready(server: EmbeddedRedis, make_settings: MakeSettings) -> None:
    settings = make_settings(redis_url=server.url, lease_secs=60.0, heartbeat_secs=20.0)
    async with edge_server(settings) as edge:
        assert (await edge.http.get("/ready")).json() == {"status": "ready"}
        edge.tracker.lease.reasserting.add(0)
        ready = await edge.http.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasserting": [0]})
        assert (await edge.http.get("/health")).json()["reasserting"] == [0]
        await edge.tracker.lease.announce()
        metrics = (await edge.http.get("/metrics")).text
        assert 'lifecycle_cluster_reasserting_replicas{role="frontend"} 1.0' in metrics
        assert 'lifecycle_cluster_reasserting_replicas{role="worker"} 0.0' in metrics


async def _knows(store: Store, replica: str) -> bool:
    return await store.command("HGET", store.keys.prefixes[0] + "ticks", replica) is not None


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_client_is_told_and_the_next_request_runs(
    server: EmbeddedRedis, make_settings: MakeSettings, tmp_path: Path, restarts: bool
) -> None:
    chosen: Settings = make_settings(redis_url=server.url, lease_secs=30.0, sse_keepalive_secs=30.0)
    async with running(chosen, tmp_path) as cluster:
        await cluster.worker("silent", "tests.engines:silent")
        url = cluster.frontends[0].url
        async with post(cluster.http, url, chat("0", "silent"), X_Request_Id="r0"):
            pass  # cancelled: its numbers are compared and agree again
        async with post(cluster.http, url, chat("2", "silent"), X_Request_Id="r1") as stream:
            assert await stream.read_tokens(2) == "0 1 "
            if restarts:
                server.restart()
            else:
                _flush(server)
            async with asyncio.timeout(10):
                error = error_of(await stream.read())
        assert error is not None
        assert (error["error_type"], error["code"]) == ("state_lost", 503)
        assert await cluster.metric("lifecycle_inflight_requests") == 0

        async def served() -> bool:
            answer = await cluster.http.get(url + "/v1/models")
            return answer.status_code == 200 and any(m["id"] == "echo" for m in answer.json()["data"])

        await wait_until(served)
        async with asyncio.timeout(10), post(cluster.http, url, chat("hello")) as stream:
            assert text_of(await stream.read()) == "hello"


def _flush(server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
