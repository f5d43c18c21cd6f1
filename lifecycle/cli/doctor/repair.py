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
from lifecycle.replica.reaper import Reaper
from lifecycle.store.transitions import Store

_LEASES = 4.0  # that it takes at most: a grace, a lent lease, and some time for each
_SWEEPS_A_LEASE = 4  # fewer than two would look like an outage of Redis, during which no lease expires
_REPAIRED = frozenset({"leases", "cleanup", "orphans"})


async def repair(store: Store) -> None:
    """Expire what is due, clean up after it, and let keys without an owner expire.

    An unknown replica is given a lease first, which is waited for. Raises StoreUnavailable, and RedisError when Redis
    refuses a command: repairing needs the rights of a frontend.
    """
    reaper, lease_secs = Reaper(store), store.settings.lease_secs
    lent_until, give_up_at = 0.0, time.monotonic() + _LEASES * lease_secs
    while True:
        await reaper.sweep()
        now = time.monotonic()
        if reaper.lent:
            lent_until = now + lease_secs
        if now > give_up_at or (now > lent_until and not await _is_repairable(store)):
            break
        await asyncio.sleep(lease_secs / _SWEEPS_A_LEASE)
    await expire_strays(store)


async def _is_repairable(store: Store) -> bool:
    """Return whether there is something left that further sweeps repair."""
    findings = [*await check_cluster(store), *await check_requests(store)]
    return any(found.check in _REPAIRED and found.level is not Level.OK for found in findings)
