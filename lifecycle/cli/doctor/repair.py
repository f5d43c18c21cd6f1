"""Repair what `doctor` can name: what replicas that are gone have left behind.

It does what the reaper of every replica does, by the same transitions, so it may run beside them and be repeated. It is
of use when no replica runs, or when nobody wants to wait for them.
"""

from __future__ import annotations

import asyncio
import time

from lifecycle.cli.doctor.cluster import check_cluster
from lifecycle.cli.doctor.finding import Level
from lifecycle.cli.doctor.keys import expire_strays
from lifecycle.cli.doctor.requests import check_requests
from lifecycle.ids import replica_of
from lifecycle.queries import cluster
from lifecycle.replica.reaper import Reaper
from lifecycle.store.transitions import Store

_LEASES = 3.0  # that it takes at most: a grace, a lease, and some time for each
_SWEEPS_A_LEASE = 4  # fewer than two would look like an outage of Redis, during which no lease expires
_REPAIRED = frozenset({"leases", "cleanup", "orphans"})


async def repair(store: Store) -> None:
    """Expire what is due, clean up after it, and let keys without an owner expire.

    The lease of a replica that is not listed is waited for. Raises StoreUnavailable, and RedisError when Redis
    refuses a command: repairing needs the rights of a frontend.
    """
    reaper, lease_secs = Reaper(store), store.settings.lease_secs
    give_up_at = time.monotonic() + _LEASES * lease_secs
    while True:
        await asyncio.gather(*(reaper.sweep(shard) for shard in range(store.settings.shards)))
        if time.monotonic() > give_up_at or not await _is_repairable(store):
            break
        await asyncio.sleep(lease_secs / _SWEEPS_A_LEASE)
    await expire_strays(store)


async def _is_repairable(store: Store) -> bool:
    """Return whether there is something left that further sweeps repair, or a lease of a replica that is not listed."""
    listed = {replica.id for replica in await cluster.replicas(store)}
    if any(replica_of(member) not in listed for member in await cluster.leases(store)):
        return True
    findings = [*await check_cluster(store), *await check_requests(store)]
    return any(found.check in _REPAIRED and found.level is not Level.OK for found in findings)
