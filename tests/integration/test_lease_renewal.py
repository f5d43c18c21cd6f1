"""The renewal of a lease beside a blocked event loop: only of a lease that is valid."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from lifecycle.aio import tasks
from lifecycle.errors import Fenced
from lifecycle.queries import cluster
from lifecycle.replica.lease import Lease
from lifecycle.replica.reaper import Reaper
from lifecycle.store.instructions import Instruction
from lifecycle.store.results import PendingCancellation, Reconciliation
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.conftest import MakeSettings, MakeStore
from tests.waiting import wait_until


class Holder:
    """A holder without requests."""

    state = "ready"

    def __init__(self) -> None:
        self.fenced: list[str] = []
        self.checked: list[int] = []

    def held(self, shard: int) -> Collection[str]:
        return ()

    def about(self) -> dict[str, Any]:
        return {"state": self.state}

    async def on_pending_cancellations(self, cancellations: Sequence[PendingCancellation]) -> None:
        raise AssertionError

    async def on_not_in_redis(self, rids: Sequence[str]) -> None:
        raise AssertionError

    async def on_not_held_locally(self, rids: Sequence[str]) -> None:
        raise AssertionError

    async def on_new_epoch(self, shard: int) -> None:
        raise AssertionError

    async def on_data_lost(self, shard: int) -> None:
        assert self.fenced, "nothing was lost before"
        self.checked.append(shard)

    def on_instruction(self, instruction: Instruction) -> None:
        raise AssertionError

    def on_fenced(self, shard: int, expired: str, cause: Fenced) -> None:
        self.fenced.append(expired)


async def _living(store: Store) -> dict[str, str]:
    return {replica.id: replica.state for replica in await cluster.replicas(store)}


async def test_a_renewal_repeats_what_was_announced(store: Store, make_store: MakeStore) -> None:
    holder = Holder()
    lease = Lease(store, Role.WORKER, holder, ["m"])
    await lease.renew_through(make_store())
    assert await _living(store) == {}, "it had not joined"
    await lease.join(1)
    holder.state = "draining"
    await lease.renew_through(make_store())
    assert await _living(store) == {lease.id: "ready"}
    await _leave(store, lease)


async def test_a_setting_that_was_changed_during_a_blockage_applies_after_it(
    store: Store, make_store: MakeStore
) -> None:
    lease = Lease(store, Role.WORKER, Holder(), ["m"])
    await lease.join(1)
    await store.configure("max_attempts", 7)
    await lease.renew_through(make_store())
    await lease.announce()
    assert store.settings.max_attempts == 7
    await _leave(store, lease)


async def test_a_lease_that_has_expired_is_not_renewed(store: Store, make_store: MakeStore) -> None:
    lease = Lease(store, Role.WORKER, Holder(), ["m"])
    await lease.join(1)
    await store.expire(0, lease.ids[0])
    await lease.renew_through(make_store())
    assert await store.command("ZCARD", store.keys.prefixes[0] + "workers") == 0
    await _leave(store, lease)


async def test_a_replica_comes_back_under_a_new_id_where_its_lease_has_expired(
    make_store: MakeStore, make_settings: MakeSettings
) -> None:
    store = make_store(make_settings(shards=2, heartbeat_secs=0.05))
    holder = Holder()
    lease = Lease(store, Role.WORKER, holder, ["m"])
    await lease.join(1)
    running = asyncio.create_task(lease.run())
    try:
        await store.expire(1, lease.id)
        await wait_until(lambda: holder.fenced == [lease.id], what="a lease that is known to have expired")
        joined = store.keys.prefixes[1] + "workers"

        async def is_back() -> bool:
            return await store.command("ZSCORE", joined, f"{lease.id}~1") is not None

        await wait_until(is_back, what="another lease in that shard")
        assert lease.ids == [lease.id, f"{lease.id}~1"], "the other shard knows it as before"
        await wait_until(lambda: holder.checked == [1], what="a shard whose ends are checked")
        assert list(await _living(store)) == [lease.id]
    finally:
        await tasks.end((running,))
        await _leave(store, lease)


async def test_a_replica_comes_back_where_its_next_id_has_expired_too(store: Store) -> None:
    """Two servers answer it by turns after a failover, and one of them has ended what the other has let join."""
    holder = Holder()
    lease = Lease(store, Role.WORKER, holder, ["m"])
    await lease.join(1)
    await store.expire(0, lease.id)
    await store.command("SET", f"{store.keys.prefixes[0]}fenced:{lease.id}~1", 1, "EX", 60)
    await lease.shards[0].renew()
    assert lease.ids[0] == f"{lease.id}~2"
    assert holder.fenced == [lease.id, f"{lease.id}~1"]
    await _leave(store, lease)


async def test_each_renewal_but_the_first_tells_how_much_time_has_passed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another id too: the shard's clock of limits then leaves out the steps of Redis's clock."""
    told: list[float | None] = []
    reconcile_shard = Store.reconcile_shard

    async def noted(self: Store, *args: Any, elapsed_secs: float | None = None, **more: Any) -> Reconciliation:
        told.append(elapsed_secs)
        return await reconcile_shard(self, *args, elapsed_secs=elapsed_secs, **more)

    monkeypatch.setattr(Store, "reconcile_shard", noted)
    lease = Lease(store, Role.WORKER, Holder(), ["m"])
    await lease.join(1)
    assert told == [None] * store.settings.shards
    await lease.renew_through(store)
    await store.expire(0, lease.id)
    await lease.shards[0].renew()
    assert lease.ids[0] == f"{lease.id}~1"
    assert all(secs is not None for secs in told[store.settings.shards :])
    await _leave(store, lease)


async def test_what_redis_refuses_in_one_shard_keeps_nothing_else_from_leaving(
    make_store: MakeStore, make_settings: MakeSettings
) -> None:
    store = make_store(make_settings(shards=2))
    lease, reaper = Lease(store, Role.WORKER, Holder(), ["m"]), Reaper(store)
    await lease.join(1)

    async def expire(shard: int, replica: str) -> None:
        if shard == 0:
            raise ResponseError("WRONGTYPE")
        await reaper.sweep(shard, replica)

    await lease.leave(expire)
    assert await _living(store) == {}
    assert await store.fate_of(lease.id) == "expired", "the shard may count requests of it"
    await reaper.sweep(0, lease.id)


@pytest.mark.parametrize(("died", "fate"), [("in a shard", "expired"), ("once it was shown", "left"), ("", "left")])
async def test_what_a_replica_announced_last_tells_how_it_ended(
    make_store: MakeStore, make_settings: MakeSettings, died: str, fate: str
) -> None:
    """It may die at any moment of its leave, or a failover may lose the leave."""
    settings = make_settings(heartbeat_secs=0.2, lease_secs=0.5)
    store, holder = make_store(settings), Holder()
    lease, reaper = Lease(store, Role.WORKER, holder, ["m"]), Reaper(store)
    assert await store.fate_of(lease.id) == "unknown"
    await lease.join(1)
    holder.state = "draining"
    await lease.announce()
    assert await store.fate_of(lease.id) == "listed"

    async def expire(shard: int, replica: str) -> None:
        await reaper.sweep(shard, replica)
        if died == "in a shard":
            await asyncio.Event().wait()

    async def has_finished() -> bool:
        return b"finished" in await store.command("HGET", f"{store.keys.control}replica:{lease.id}", "about")

    leaving = asyncio.create_task(lease.leave(expire))
    if died == "in a shard":
        await asyncio.sleep(0.1)
    else:
        await wait_until(has_finished)
        [shown] = await cluster.replicas(store)
        assert (shown.state, shown.inflight) == ("draining", 0)
    if died:
        assert not await tasks.end((leaving,))
    else:
        await leaving

    async def is_over() -> bool:
        return await store.fate_of(lease.id) != "listed"

    await wait_until(is_over)
    assert await store.fate_of(lease.id) == fate

    async def is_forgotten() -> bool:
        await store.heartbeat("worker-1", Role.WORKER, {}, [])
        return not await store.command("EXISTS", f"{store.keys.control}replica:{lease.id}")

    await wait_until(is_forgotten)
    assert await store.fate_of(lease.id) == fate
    await store.leave("worker-1", Role.WORKER)


async def test_a_replica_that_leaves_twice_is_not_listed_again(store: Store) -> None:
    lease = Lease(store, Role.FRONTEND, Holder())
    await lease.join(1)
    await _leave(store, lease)
    version = await store.command("HGET", f"{store.keys.control}roster", "version")
    await _leave(store, lease)
    assert await store.command("HGET", f"{store.keys.control}roster", "version") == version
    assert await store.fate_of(lease.id) == "left"


async def test_a_worker_with_an_engine_that_does_not_end_does_not_leave_in_order(store: Store) -> None:
    class Stuck(Holder):
        def held(self, shard: int) -> Collection[str]:
            return ["r"]

        async def on_not_in_redis(self, rids: Sequence[str]) -> None:
            pass

    lease = Lease(store, Role.WORKER, Stuck(), ["m"])
    await lease.join(1)
    await _leave(store, lease)
    assert await store.fate_of(lease.id) == "expired"


async def _leave(store: Store, lease: Lease) -> None:
    await lease.leave(Reaper(store).sweep)
    assert await _living(store) == {}
