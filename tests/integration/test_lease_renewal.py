"""The renewal of a lease beside a blocked event loop: only of a lease that is valid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from lifecycle.errors import Fenced
from lifecycle.queries import cluster
from lifecycle.replica.lease import Lease
from lifecycle.store.results import PendingCancellation
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.conftest import MakeStore


class Holder:
    """A holder without requests."""

    state = "ready"

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
        raise AssertionError


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
    await store.expire(lease.id)
    await store.finish_cleanup(lease.id)


async def test_a_lease_that_has_expired_is_not_renewed(store: Store, make_store: MakeStore) -> None:
    lease = Lease(store, Role.WORKER, Holder(), ["m"])
    await lease.join(1)
    await store.expire(lease.id)
    await store.finish_cleanup(lease.id)
    other = make_store()
    with pytest.raises(Fenced):
        await lease.renew_through(other)
    assert not lease.is_announced
    await lease.renew_through(other)
    assert await _living(store) == {}
