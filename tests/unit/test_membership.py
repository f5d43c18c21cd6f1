"""Leases: when a replica counts as expired, and which replicas may join."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lifecycle.errors import ConfigurationConflict, Fenced
from lifecycle.queries import cluster
from lifecycle.store.roster_cache import RosterCache
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.joining import join, leave
from tests.unit.world import LEASE_SECS, MODEL, World


async def test_a_replica_expires_with_its_lease_and_the_id_never_comes_back(world: World) -> None:
    for _ in range(3):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("w0")
    assert [expired.replica for expired in await world.store.expire(0)] == ["w0"]
    with pytest.raises(Fenced):
        await world.store.reconcile_shard(0, "w0", Role.WORKER)
    assert "w0" not in {entry.id for entry in (await world.store.roster()).replicas}


async def test_after_a_silence_no_replica_expires_for_one_lease(world: World) -> None:
    world.shift_clock(LEASE_SECS * 1.5)
    roster = await world.store.roster()
    assert roster.grace, "before the first heartbeat after it, too"
    assert len(roster.replicas) == 4
    assert await world.store.expire(0) == []
    assert len((await world.store.roster()).replicas) == 4
    for _ in range(3):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("w0")
    assert [expired.replica for expired in await world.store.expire(0)] == ["w0"]


async def test_a_clock_put_back_expires_no_replica_and_shortens_no_lease(world: World) -> None:
    world.shift_clock(-LEASE_SECS * 10)
    assert await world.store.expire(0) == []
    leases = {entry.id: entry.lease_expires_in_ms for entry in (await world.store.roster()).replicas}
    assert len(leases) == 4
    assert max(leases.values()) <= LEASE_SECS * 1000, "a lease from before must not last ten times as long"
    for _ in range(4):
        world.shift_clock(LEASE_SECS / 3)
        await world.heartbeat("w0")
    assert [expired.replica for expired in await world.store.expire(0)] == ["w0"]


async def test_a_replica_with_another_common_setting_does_not_start(world: World) -> None:
    settings = world.store.settings.model_copy(update={"shards": 2})
    other = Store(world.store.commands, settings, plain_lua=True)
    with pytest.raises(ConfigurationConflict, match=r"LIFECYCLE_SHARDS=2 differs from 1"):
        await other.heartbeat("f9", Role.FRONTEND, {}, [])
    for name in ("f0", "f1", "w0", "w1"):
        await leave(world.store, name, Role.FRONTEND if name.startswith("f") else Role.WORKER)
    await other.heartbeat("f9", Role.FRONTEND, {}, [])


async def test_a_worker_whose_join_was_lost_waits_for_a_bell_once_it_has_joined_again(world: World) -> None:
    """A failover loses its join, it takes, and a sweep gives it a lease before its next heartbeat.

    Nobody would know for which models it waits, if it expired before that heartbeat.
    """
    name, command = "worker-late", world.store.command
    await join(world.store, name, Role.WORKER, models=[MODEL])
    await command("ZREM", world.prefix + "workers", name)
    await command("HDEL", world.prefix + "served", name)
    await command("HDEL", world.prefix + "ticks", name)
    assert (await world.take_all(name)).waits
    assert await command("ZSCORE", f"{world.prefix}waiting:{MODEL}", name) is None
    await world.store.expire(0)
    await join(world.store, name, Role.WORKER, models=[MODEL])
    assert (await world.take_all(name)).waits
    assert await command("ZSCORE", f"{world.prefix}waiting:{MODEL}", name)
    await world.store.expire(0, name)
    assert await command("ZSCORE", f"{world.prefix}waiting:{MODEL}", name) is None


@pytest.mark.parametrize("since", ["", "3"], ids=["no_other", "another"])
async def test_a_change_of_a_common_setting_that_redis_has_lost_ends_no_replica(world: World, since: str) -> None:
    """It is written again, or gives way to one that has come since."""
    store = world.store
    other = Store(store.commands, store.settings, plain_lua=True)
    await other.heartbeat("f9", Role.FRONTEND, {}, [])
    lost = await store.command("HGET", store.keys.control + "config", "max_attempts")
    await store.configure("max_attempts", 7)
    await join(store, "f0", Role.FRONTEND)
    assert store.settings.max_attempts == 7
    await store.command("HSET", store.keys.control + "config", "max_attempts", lost, "revision", "0")
    if since:
        await store.configure("max_attempts", int(since))
    await join(store, "f0", Role.FRONTEND)
    await other.heartbeat("f9", Role.FRONTEND, {}, [])
    assert (store.settings.max_attempts, other.settings.max_attempts) == (int(since or 7),) * 2
    assert (await store.configuration())["max_attempts"] == int(since or 7)


async def test_one_replica_is_told_to_sweep_a_shard_in_each_interval(world: World) -> None:
    interval = world.store.settings.sweep_secs

    async def told(*names: str) -> list[str]:
        asked = [(name, await world.store.reconcile_shard(0, name, Role.WORKER, sweeps=True)) for name in names]
        return [name for name, reconciliation in asked if reconciliation.sweep]

    assert not (await world.store.reconcile_shard(0, "w0", Role.WORKER)).sweep, "one that does not sweep"
    assert await told("w0", "w1", "w0") == ["w0"]
    world.shift_clock(interval)
    assert await told("w1", "w0", "w1") == ["w1"]
    world.shift_clock(-10 * interval)
    assert await told("w0", "w1") == ["w0"], "a clock that is put back must not delay the next sweep"


async def test_only_what_has_changed_in_the_list_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, cache = world.store, world.store.roster_cache
    assert {entry.id for entry in (await store.listed()).replicas} == {"f0", "f1", "w0", "w1"}
    read: list[str] = []
    update = RosterCache.update

    def is_current() -> bool:
        return cache.announced == (cache.epoch, cache.version)

    def noted(cache: RosterCache, reply: list[Any]) -> bool:
        read.extend(changed[0].decode() for changed in reply[7:])
        return update(cache, reply)

    monkeypatch.setattr(RosterCache, "update", noted)
    await world.heartbeat()
    assert is_current(), "a heartbeat that changes nothing"
    await join(store, "w1", Role.WORKER, {"counted": {"output_tokens": 7}}, ["m"])
    assert is_current(), "a figure that is only shown"
    await join(store, "w0", Role.WORKER, {"state": "unhealthy"}, ["m"])
    await leave(store, "f1", Role.FRONTEND)
    await world.heartbeat("f1", "w0")
    assert not is_current()
    abouts = {entry.id: entry.about for entry in (await store.listed()).replicas}
    assert (sorted(read), sorted(abouts)) == (["f1", "w0"], ["f0", "w0", "w1"])
    assert b"unhealthy" in abouts["w0"]
    assert is_current()
    await store.listed()
    assert sorted(read) == ["f1", "w0"]


async def test_a_scrape_decodes_what_a_replica_says_of_itself_once_for_each_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    loads = orjson.loads

    def noted(text: bytes) -> Any:
        if b"described" in text:
            decoded.append(text)
        return loads(text)

    for name in ("w0", "w1"):
        await join(world.store, name, Role.WORKER, {"described": name, "models": [MODEL]}, [MODEL])
    monkeypatch.setattr(orjson, "loads", noted)
    for _ in range(3):
        await cluster.snapshot(world.store, details=False)
    assert len(decoded) == 2
    await join(world.store, "w1", Role.WORKER, {"described": "w1", "models": [MODEL], "state": "paused"}, [MODEL])
    for _ in range(3):
        shown = await cluster.snapshot(world.store, details=False)
    assert len(decoded) == 3
    assert {r.id: r.state for r in shown.replicas if r.id in ("w0", "w1")} == {"w0": "ready", "w1": "paused"}


async def test_the_list_is_read_anew_after_redis_has_lost_it(world: World) -> None:
    store = world.store
    before = await store.listed()
    control = store.keys.control
    await store.command("HSET", control + "roster", "version", "1")  # a failover took it back
    assert sorted((await store.listed()).replicas) == sorted(before.replicas)
    for key in ("roster", "changes", "frontends", "workers", *(f"replica:{entry.id}" for entry in before.replicas)):
        await store.command("DEL", control + key)
    await store.heartbeat("w0", Role.WORKER, {}, ["m"])
    assert [entry.id for entry in (await store.listed()).replicas] == ["w0"]


async def test_changes_that_only_a_demoted_primary_has_shown_do_not_stay(world: World) -> None:
    """It was frozen, so replicas had expired when it went on, and their heartbeats came to the new primary."""
    store, control = world.store, world.store.keys.control
    names = ("roster", "changes", "versions", "workers", "expired_replicas", "replica:w1")
    known = await store.listed()
    before = {name: await _contents(store, control + name) for name in names}
    await leave(store, "w1", Role.WORKER)
    assert "w1" not in {entry.id for entry in (await store.listed()).replicas}
    for name, writes in before.items():
        await store.command("DEL", control + name)
        for write in writes:
            await store.command(*write)
    await store.command("PEXPIRE", control + "replica:w1", 60_000)
    await join(store, "w0", Role.WORKER, {"state": "paused"}, [MODEL])
    listed = {entry.id: entry.about for entry in (await store.listed()).replicas}
    assert sorted(listed) == sorted(entry.id for entry in known.replicas)
    assert b"paused" in listed["w0"]


async def _contents(store: Store, key: str) -> list[tuple[str | bytes, ...]]:
    """Return the writes that make this key, a hash or a sorted set, what it is now."""
    kind = await store.command("TYPE", key)
    if kind == b"hash":
        flat = await store.command("HGETALL", key)
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return [("HSET", key, field, value) for field, value in pairs]
    members = await store.command("ZRANGE", key, 0, -1)
    return [("ZADD", key, await store.command("ZSCORE", key, member), member) for member in members]


async def test_who_has_not_read_the_list_for_a_day_reads_it_anew(world: World) -> None:
    store = world.store
    assert "w1" in {entry.id for entry in (await store.listed()).replicas}
    await leave(store, "w1", Role.WORKER)
    world.shift_clock(86400 + LEASE_SECS)  # after which it is not noted any more that a replica has left
    for _ in range(2):
        await world.heartbeat("w1")
        world.shift_clock(LEASE_SECS / 3)
    assert not await store.command("ZSCORE", store.keys.control + "changes", "w1")
    assert "w1" not in {entry.id for entry in (await store.listed()).replicas}
    read: list[int] = []
    update = store.roster_cache.update

    def noted(reply: list[Any]) -> bool:
        read.append(len(reply[7:]))
        return update(reply)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.roster_cache, "update", noted)
        world.shift_clock(2 * 86400)
        await store.listed()
    assert read == [0], "a list that has not changed for days is not read anew"


async def test_a_long_list_is_read_in_pages(world: World) -> None:
    names = {f"w{number:03}" for number in range(450)}
    for name in names:
        await world.store.heartbeat(name, Role.WORKER, {}, ["m"])
    assert {entry.id for entry in (await world.store.listed()).replicas} >= names
    assert {entry.id for entry in (await world.store.roster()).replicas} >= names


async def test_of_very_many_models_only_those_served_last_are_known(store: Store) -> None:
    await join(store, "w0", Role.WORKER, {}, [f"old-{number}" for number in range(600)])
    await join(store, "w1", Role.WORKER, {}, [f"new-{number}" for number in range(600)])
    for prefix in (store.keys.control, *store.keys.prefixes):
        known = await store.command("ZRANGE", prefix + "models", 0, -1)
        assert (len(known), sum(name.startswith(b"new-") for name in known)) == (1000, 600)
    for worker in ("w0", "w1"):
        await leave(store, worker, Role.WORKER)


async def test_a_replica_that_renews_its_lease_while_pages_are_read_is_in_one_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases are read in the order in which they end, so a renewal moves a replica behind those still to be read."""
    store, page = world.store, 2
    monkeypatch.setattr("lifecycle.store.runner.LEASES_PAGE", page)
    names = {f"w{number}" for number in range(5)}
    for name in sorted(names):
        world.shift_clock(0.001)
        await join(store, name, Role.WORKER, {}, ["m"])
        await store.command("HSET", f"{world.prefix}running:{name}", "r", "")
    read, call = [0], store._call

    async def renewed_in_between(name: str, *args: Any) -> Any:
        reply = await call(name, *args)
        if name in ("members", "listed_leases"):
            read[0] += 1
            if read[0] <= 2:  # the first ones that were read go to the end
                for member in ("w0", "w1")[: read[0]]:
                    world.shift_clock(0.001)
                    await join(store, member, Role.WORKER, {}, ["m"])
        return reply

    monkeypatch.setattr(store, "_call", renewed_in_between)
    assert set(await store.count_held(0, Role.WORKER)) == names
    read[0] = 0
    assert {entry.id for entry in await store.listed_leases(Role.WORKER)} == names
    assert read[0] > 2
