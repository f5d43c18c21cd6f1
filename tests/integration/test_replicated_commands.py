"""Transitions that wait until replicas of Redis have them (LIFECYCLE_WAIT_REPLICAS)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings, SettingsError, load
from lifecycle.store import script_loader
from lifecycle.store.connect import open_store
from lifecycle.store.link import Link, Reply
from lifecycle.store.redis_cluster_topology import slot_of
from lifecycle.store.results import Outcome
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, Status
from tests.cluster_setup import ClusterSetup
from tests.known_faults.core.writes import admit, append, start
from tests.servers import ask, holds, info, wait_for_servers
from tests.waiting import wait_until

USERS = (Path(__file__).parents[2] / "deploy" / "redis" / "users.acl").read_text()
_NEVER_MS = 30_000  # longer than any test waits for a replica
_SOON_MS = 20


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EmbeddedRedis, EmbeddedRedis]]:
    """A primary and a replica that follows it."""
    config = {"repl-diskless-sync-delay": "0"}
    with EmbeddedRedis(port=0, config=config) as primary, EmbeddedRedis(port=0, config=config) as replica:
        ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        _wait_for_link(replica)
        yield primary, replica


@pytest.fixture
def primary(servers: tuple[EmbeddedRedis, EmbeddedRedis]) -> EmbeddedRedis:
    return servers[0]


@pytest.fixture
def replica(servers: tuple[EmbeddedRedis, EmbeddedRedis]) -> Iterator[EmbeddedRedis]:
    """The replica; a test may freeze it."""
    yield servers[1]
    servers[1].thaw()
    _wait_for_link(servers[1])


def _wait_for_link(replica: EmbeddedRedis) -> None:
    def linked() -> bool:
        return info(replica, "replication").get("master_link_status") == "up"

    wait_for_servers(lambda: holds(linked), "a replica that follows")


def _settings(url: str, namespace: str, wait_timeout_ms: int, **overrides: Any) -> Settings:
    chosen = {"wait_replicas": 1, "redis_timeout_secs": 80.0, "wait_timeout_ms": wait_timeout_ms, **overrides}
    return Settings(redis_url=url, namespace=namespace, **chosen)


@asynccontextmanager
async def _looking(settings: Settings) -> AsyncIterator[Store]:
    """Open a store that waits for nobody.

    The servers have all scripts then: one that they lack is sent again behind a wait.
    """
    async with open_store(settings.model_copy(update={"wait_replicas": 0})) as store:
        for node in await store.commands.nodes():
            for name in script_loader.names():
                await node.execute("SCRIPT", "LOAD", script_loader.load(name).source)
        yield store


async def _status(store: Store, rid: str) -> Status | None:
    record = await store.read(rid)
    return record.status if record else None


async def _has_status(store: Store, rid: str, status: Status) -> None:
    async def reached() -> bool:
        return await _status(store, rid) is status

    await wait_until(reached, what=f"{rid} as {status}")


async def test_a_cancel_returns_once_the_replica_has_it_and_holds_up_nobody(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str
) -> None:
    settings = _settings(primary.url, namespace, _NEVER_MS)
    async with open_store(settings) as store, _looking(settings) as looking:
        await admit(store, "r1", "f")
        await admit(store, "r2", "f")
        await start(store, "r1", "w")
        replica.freeze()
        cancelling = asyncio.create_task(store.cancel("r2", CancelMode.KILL, "please"))
        await _has_status(looking, "r2", Status.CANCELLED)
        await append(store, "r1", "w", ["tokens", "do", "not", "wait"])
        assert not cancelling.done()
        replica.thaw()
        cancelled = await cancelling
        assert cancelled is not None
        assert cancelled.what == "terminal"
        assert not store.unreplicated.counts


async def test_a_write_stands_when_too_few_replicas_confirm_it_in_time(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with open_store(_settings(primary.url, namespace, _SOON_MS)) as store:
        await admit(store, "r1", "f")
        await admit(store, "r2", "f")
        assert not store.unreplicated.counts
        replica.freeze()
        for rid in ("r1", "r2"):
            assert await store.cancel(rid, CancelMode.KILL, "please") is not None
            assert await _status(store, rid) is Status.CANCELLED
        assert store.unreplicated.counts == {"cancel": 2}
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1, "the second warning would come half a minute later"
    assert "did not confirm 1 writes by 1 replica within 20 ms (by 0)" in warnings[0]


async def test_a_repetition_over_a_new_connection_waits_too(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str
) -> None:
    settings = _settings(primary.url, namespace, _SOON_MS)
    async with open_store(settings) as store, open_store(settings) as other:
        await admit(store, "r1", "f")
        replica.freeze()
        await store.cancel("r1", CancelMode.KILL, "please")
        await other.cancel("r1", CancelMode.KILL, "please")  # changes nothing
        assert other.unreplicated.counts == {"cancel": 1}


async def test_a_transition_is_repeated_when_the_connection_is_lost_before_the_replica_has_it(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str
) -> None:
    settings = _settings(primary.url, namespace, _NEVER_MS)
    async with open_store(settings) as store, _looking(settings) as looking:
        await admit(store, "r1", "f")
        await admit(store, "r2", "f")
        replica.freeze()
        given_up = asyncio.create_task(store.cancel("r1", CancelMode.KILL, "please"))
        repeated = asyncio.create_task(store.cancel("r2", CancelMode.KILL, "please", retry_for_secs=60.0))
        for rid in ("r1", "r2"):
            await _has_status(looking, rid, Status.CANCELLED)
        ask(primary, "CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(StoreUnavailable):
            await given_up
        assert not repeated.done()
        replica.thaw()
        assert await repeated is not None
        assert not store.unreplicated.counts


async def test_an_end_that_was_confirmed_outlives_the_primary(namespace: str) -> None:
    with EmbeddedRedis(port=0) as primary, EmbeddedRedis(port=0) as replica:
        ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        _wait_for_link(replica)
        settings = _settings(primary.url, namespace, _NEVER_MS)
        async with open_store(settings) as store, _looking(settings) as looking:
            record, tokens = (f"{store.keys.prefix_of('r1')}{name}:r1" for name in ("request", "tokens"))
            await admit(store, "r1", "f")
            await start(store, "r1", "w")
            await append(store, "r1", "w", ["all", "of", "it"])
            replica.freeze()
            finishing = asyncio.create_task(store.finish("r1", "w", 1, Outcome("completed"), 3))
            await _has_status(looking, "r1", Status.COMPLETED)
            assert not finishing.done()
            replica.thaw()
            assert (await finishing).what == "done"
            primary.kill()
            ask(replica, "REPLICAOF", "NO", "ONE")
            assert ask(replica, "HGET", record, "status") == "completed"
            assert "1-3" in [entry_id for entry_id, _ in ask(replica, "XRANGE", tokens, "-", "+")]


async def test_those_who_come_together_share_one_wait(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    send = Link.send

    def counted(link: Link, commands: Sequence[bytes], replies: Sequence[Reply]) -> None:
        nonlocal waits
        waits += sum(b"\r\nWAIT\r\n" in command for command in commands)
        send(link, commands, replies)

    async with open_store(_settings(primary.url, namespace, _NEVER_MS)) as store:
        await admit(store, "r0", "f")
        monkeypatch.setattr(Link, "send", counted)
        await asyncio.gather(*(admit(store, f"r{number}", "f") for number in range(1, 101)))
    assert waits == 1


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answers(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str
) -> None:
    settings = _settings(primary.url, namespace, _NEVER_MS)
    async with open_store(settings) as store, _looking(settings) as looking:
        await admit(store, "r1", "f")
        await admit(store, "r2", "f")
        replica.freeze()
        leaving, staying = (asyncio.create_task(store.cancel(r, CancelMode.KILL, "please")) for r in ("r1", "r2"))
        for rid in ("r1", "r2"):
            await _has_status(looking, rid, Status.CANCELLED)
        leaving.cancel()
        replica.thaw()
        assert await staying is not None
        assert leaving.cancelled()


async def test_a_user_who_may_not_wait_is_told_and_goes_on(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask(primary, "ACL", "SETUSER", "hasty", "on", ">secret", "~*", "&*", "+@all", "-wait")
    url = primary.url.replace("redis://", "redis://hasty:secret@")
    async with open_store(_settings(url, namespace, _SOON_MS)) as store:
        await admit(store, "r1", "f")
        assert store.unreplicated.counts == {"admit": 1}
    assert "may not call WAIT" in caplog.text


async def test_the_users_of_the_acl_file_may_wait(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str
) -> None:
    urls: dict[str, str] = {}
    for line in USERS.replace("lc:", f"{namespace}:").splitlines():
        _, user, *rules = line.split()
        if user != "default":
            ask(primary, "ACL", "SETUSER", user, *rules)
            urls[user] = primary.url.replace("redis://", f"redis://{user}:{user.upper()}-PASSWORD@")
    async with (
        open_store(_settings(urls["frontend"], namespace, _NEVER_MS)) as frontend,
        open_store(_settings(urls["worker"], namespace, _NEVER_MS)) as worker,
        open_store(_settings(urls["operator"], namespace, _NEVER_MS)) as operator,
    ):
        await admit(frontend, "r1", "f")
        assert (await worker.finish("r1", "w", 1, Outcome("completed"), 0)).what != "done"
        assert await operator.cancel("r1", CancelMode.KILL, "please") is not None
        for store in (frontend, worker, operator):
            assert not store.unreplicated.counts


async def test_without_the_setting_there_is_one_connection_and_no_wait(
    primary: EmbeddedRedis, replica: EmbeddedRedis, namespace: str
) -> None:
    def connections() -> int:
        return len(ask(primary, "CLIENT", "LIST", "TYPE", "normal").splitlines())

    before = connections()
    async with open_store(_settings(primary.url, namespace, _SOON_MS, wait_replicas=0)) as store:
        replica.freeze()
        await admit(store, "r1", "f")
        assert connections() == before + 1
        assert not store.unreplicated.counts


async def test_each_node_of_a_cluster_waits_for_its_own_replicas(namespace: str) -> None:
    with ClusterSetup(primaries=3, replicas=1, node_timeout_ms=60_000) as setup:
        settings = _settings(setup.url, namespace, _NEVER_MS, shards=3)
        async with open_store(settings) as store, _looking(settings) as looking:
            rids = [next(f"r{n}" for n in range(1000) if store.keys.shard_of(f"r{n}") == s) for s in range(3)]
            for rid in rids:
                await admit(store, rid, "f")
            frozen = setup.primaries.index(setup.node_of(slot_of(store.keys.prefix_of(rids[0]))))
            setup.replicas[frozen][0].freeze()
            try:
                waiting = asyncio.create_task(store.cancel(rids[0], CancelMode.KILL, "please"))
                await _has_status(looking, rids[0], Status.CANCELLED)
                for rid in rids[1:]:
                    assert await store.cancel(rid, CancelMode.KILL, "please") is not None
                assert not waiting.done()
            finally:
                setup.replicas[frozen][0].thaw()
            assert await waiting is not None
            assert not store.unreplicated.counts


async def test_a_slot_that_moves_disturbs_only_the_writes_of_its_own_shard(namespace: str) -> None:
    """Two shards of one node share a pipeline, and so the small write that precedes WAIT, which has one slot."""
    with ClusterSetup(primaries=3, replicas=1, node_timeout_ms=60_000) as setup:
        settings = _settings(setup.url, namespace, _NEVER_MS, shards=6, redis_timeout_secs=70.0)
        async with open_store(settings) as store, _looking(settings) as looking:
            moving_slot, staying_slot = (slot_of(store.keys.prefixes[shard]) for shard in (0, 1))
            source = setup.node_of(moving_slot)
            assert source is setup.node_of(staying_slot)
            target = next(node for node in setup.primaries if node is not source)
            ids = (f"r{number}" for number in range(1000))
            moving, staying = ([], [])  # type: tuple[list[str], list[str]]
            while min(len(moving), len(staying)) < 3:
                rid = next(ids)
                {0: moving, 1: staying}.get(store.keys.shard_of(rid), []).append(rid)
            await asyncio.gather(admit(store, staying[0], "f"), admit(store, moving[0], "f"))
            assert not store.unreplicated.counts

            ask(target, "CLUSTER", "SETSLOT", moving_slot, "IMPORTING", source.id)
            ask(source, "CLUSTER", "SETSLOT", moving_slot, "MIGRATING", target.id)
            stays, moves = await asyncio.gather(
                admit(store, staying[1], "f"), admit(store, moving[1], "f"), return_exceptions=True
            )
            assert stays is None
            assert isinstance(moves, StoreUnavailable)
            assert await _status(looking, staying[1]) is Status.QUEUED
            assert store.unreplicated.counts == {"admit": 1}  # it stands; whether the replica has it is not known

            await setup.migrate_slot(moving_slot, target)
            replica = setup.replicas[setup.primaries.index(target)][0]
            replica.freeze()
            try:
                waiting = asyncio.create_task(admit(store, moving[2], "f"))
                await _has_status(looking, moving[2], Status.QUEUED)
                await admit(store, staying[2], "f")
                assert not waiting.done()
            finally:
                replica.thaw()
            await waiting
            assert store.unreplicated.counts == {"admit": 1}


def test_the_wait_must_be_shorter_than_the_timeout_of_a_command() -> None:
    with pytest.raises(SettingsError, match="at most half of LIFECYCLE_REDIS_TIMEOUT_SECS=2"):
        load({"wait_replicas": 1, "wait_timeout_ms": 1001})
    assert load({"wait_timeout_ms": 1001}).wait_replicas == 0
