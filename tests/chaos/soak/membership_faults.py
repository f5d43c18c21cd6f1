"""Take away what Redis knows about who is a member: the lease of a replica in one shard, or all control keys."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

from lifecycle.errors import StoreUnavailable
from lifecycle.ids import replica_of
from lifecycle.types import Role
from tests.chaos.bench import Bench
from tests.chaos.soak.fault import Fault, Struck
from tests.servers import CHANGE_SECS
from tests.waiting import wait_until


class MembershipFaults:
    """Take away nothing of a request, so every promise holds meanwhile."""

    def __init__(self, bench: Bench, dice: random.Random) -> None:
        self._bench = bench
        self._dice = dice

    def faults(self) -> list[Fault]:
        return [
            Fault("lease lost", partial(self._done, self._lease_lost)),
            Fault("control keys lost", partial(self._done, self._control_keys_lost)),
        ]

    async def _done(self, strike: Callable[[], Awaitable[Struck]]) -> Struck:
        """Strike, again if Redis does not answer; on a busy machine that may be."""

        async def struck() -> Struck | None:
            try:
                return await strike()
            except StoreUnavailable:
                return None

        return await wait_until(struck, CHANGE_SECS, "a change of the members")

    async def _lease_lost(self) -> Struck:
        keys = self._bench.store.keys
        shard, role = self._dice.randrange(len(keys.prefixes)), self._dice.choice(list(Role))
        leases = f"{keys.prefixes[shard]}{role}s"
        members = sorted(member.decode() for member in await self._bench.execute("ZRANGE", leases, 0, -1))
        if not members:
            return Struck(f"shard {shard}, no {role} there")
        victim = self._dice.choice(members)
        await self._bench.execute("ZREM", leases, victim)
        return Struck(f"shard {shard}, {replica_of(victim)}")

    async def _control_keys_lost(self) -> Struck:
        control = self._bench.store.keys.control
        node = await self._bench.store.commands.node_of(control)
        found = await node.execute("KEYS", control + "*")
        if found:
            await self._bench.execute("DEL", *found)
        return Struck(f"{len(found)} keys")
