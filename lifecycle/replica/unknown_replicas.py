"""Find replicas that a shard knows and the control keys do not, so that what they left behind is cleaned up.

The leases and a shard may be on different servers of a Redis Cluster. When the leases are lost, or their last writes,
nobody knows of a replica that died meanwhile. When a shard loses its last writes, a cleanup may be among them that is
not pending any more.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection

from lifecycle.errors import StoreError
from lifecycle.store.membership import LENT_PAGE
from lifecycle.store.runner import as_text
from lifecycle.store.transitions import Store
from lifecycle.types import Role

log = logging.getLogger(__name__)

_LOOKERS = 10  # replicas that look once a lease, of however many there are
_ROLES = {role.value for role in Role}


class UnknownReplicas:
    """Look for unknown replicas now and then, for one reaper."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._look_at = 0.0

    async def lend_leases(self, known: Collection[str]) -> int:
        """Lend a lease to each unknown replica, and return to how many, unless the last look was a moment ago.

        `known` are the ids of the living replicas and of those that are cleaned up. A shard that is away is left to
        the next look. Raises StoreUnavailable when the control keys cannot be reached.
        """
        now, lease_secs = time.monotonic(), self._store.settings.lease_secs
        if now < self._look_at:
            return 0
        self._look_at = now + lease_secs * max(1.0, len(known) / _LOOKERS) * random.uniform(0.8, 1.0)
        found: set[str] = set()
        asked = (self._store.command("HKEYS", prefix + "ticks") for prefix in self._store.keys.prefixes)
        for reply in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(reply, StoreError):
                log.debug("the replicas that a shard knows could not be read: %s", reply)
            elif isinstance(reply, BaseException):
                raise reply
            else:
                found.update(map(as_text, reply))
        unknown = [(replica, role) for replica in found - set(known) if (role := replica.partition("-")[0]) in _ROLES]
        lent = await self._store.lend_leases(sorted(unknown)[:LENT_PAGE])
        if lent:
            log.warning("%d replicas are unknown to the leases and get one; it expires if they are gone", lent)
        return lent
