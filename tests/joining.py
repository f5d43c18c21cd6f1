"""Let replicas that are only names join a cluster, as real ones do with a heartbeat.

await join(store, "w0", Role.WORKER, models=["m"])     listed, and with a lease in each shard
await leave(store, "w0", Role.WORKER)                  expired everywhere; what it held is not cleaned up
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifecycle.store.transitions import Store
from lifecycle.types import Role


async def join(
    store: Store, replica: str, role: Role, about: dict[str, Any] | None = None, models: Sequence[str] = ()
) -> None:
    """Join, or renew the leases. Raises Fenced when a lease has expired."""
    await store.heartbeat(replica, role, about or {}, models)
    for shard in range(store.settings.shards):
        await store.reconcile_shard(shard, replica, role, models=models)


async def leave(store: Store, replica: str, role: Role) -> None:
    """Let all leases expire now."""
    await store.leave(replica, role)
    for shard in range(store.settings.shards):
        await store.expire(shard, replica)
