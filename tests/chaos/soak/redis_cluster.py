"""A Redis Cluster of three primaries with a replica each: primaries fail, are failed over, and slots move.

A primary that fails is any of them, so at times that of the control slot; a fault of its own makes sure of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from redis.crc import key_slot

from lifecycle.local.embedded_redis import EmbeddedRedis, find_server
from lifecycle.local.redis_binary import BUNDLED, bundled_path
from lifecycle.settings import Settings
from lifecycle.store.keys import Keys
from tests.chaos.bench import Bench
from tests.chaos.links import PER_PROCESS, Links
from tests.chaos.soak.answered_errors import AnsweredErrors
from tests.chaos.soak.deployment import DURABLE, Deployment
from tests.chaos.soak.fault import Fault, Struck
from tests.chaos.soak.lag import lagging
from tests.chaos.soak.link_faults import LinkFaults
from tests.chaos.soak.refusals import Refusals
from tests.chaos.soak.snapshot import roll_back
from tests.cluster_setup import ClusterNode, ClusterSetup
from tests.servers import CHANGE_SECS, ask, holds, info
from tests.waiting import wait_until

_NOT_HERE = ("BUSY", "NOAUTH", "READONLY", "MASTERDOWN")
"""A node that is busy is replaced, REPLICAOF is not allowed, and replicas would need the password too."""

_NODE_TIMEOUT_MS = 1500
"""So long that a busy machine alone causes no failover, which could lose writes while no fault allows that."""


class RedisCluster(Deployment):
    shards = 6

    def __init__(self) -> None:
        binary = find_server(BUNDLED) if bundled_path() else None
        config = DURABLE | PER_PROCESS
        self._setup = ClusterSetup(binary, replicas=1, node_timeout_ms=_NODE_TIMEOUT_MS, config=config)
        self._dice = random.Random()
        self._slots: list[int] = []  # of the shards
        self._control_slot = 0

    @property
    def url(self) -> str:
        return self._setup.url

    def primaries(self) -> Sequence[EmbeddedRedis]:
        return self._owners()

    async def open_links(self) -> Links:
        return await Links.to_many(self.url, [node.port for node in self._setup.nodes])

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._setup:
            yield

    def faults(self, bench: Bench, dice: random.Random) -> list[Fault]:
        self._dice = dice
        self._place(bench.settings)
        return [
            *Refusals(self.primaries, dice).faults(but=_NOT_HERE),
            Fault("failover", self._failover),
            Fault("primary killed", self._killed, loses_data=True),
            Fault("primary frozen and thawed", self._frozen, loses_data=True, expires_leases=True),
            Fault("primary frozen briefly", self._frozen_briefly, loses_data=True),
            Fault("replica promoted that lags", self._lagging, loses_data=True),
            Fault("primary from a snapshot", self._from_a_snapshot, loses_data=True),
            Fault("node of the control slot killed", self._control_killed, loses_data=True),
            Fault("node of the control slot hangs", self._control_hangs, loses_data=True, expires_leases=True),
            *LinkFaults(bench, dice, lambda: [node.port for node in self._owners()]).faults(),
            *AnsweredErrors(bench, self.primaries, dice).faults(also=_NOT_HERE),
            Fault("slot moved key by key", self._slot_moved),
            Fault("slot moved at once", self._slot_moved_at_once),
        ]

    def _place(self, settings: Settings) -> None:
        keys = Keys(settings.namespace, settings.shards)
        self._slots = [int(key_slot(prefix.encode())) for prefix in keys.prefixes]
        self._control_slot = int(key_slot(keys.control.encode()))

    # Who is who

    def _owners(self) -> list[ClusterNode]:
        """Return the primaries of now: those that serve and do not follow anybody."""
        return [node for node in self._setup.nodes if _role(node) == "master" and node.id in _primary_ids(node)]

    def _victim(self, slot: int | None = None) -> tuple[ClusterNode, ClusterNode]:
        """Choose a primary, or that of a slot; return it and its replica."""
        wanted = self._owners() if slot is None else [self._setup.node_of(slot)]
        pairs = [(primary, node) for primary in wanted for node in self._setup.nodes if _follows(node, primary)]
        return self._dice.choice(pairs)

    async def _promoted(self, old: ClusterNode, new: ClusterNode) -> None:
        """Wait until everybody who runs says that the new one serves all that was the old one's."""

        def settled() -> bool:
            others = [node for node in self._setup.nodes if node is not old and node.running]
            return _role(new) == "master" and all(
                old.id not in _primary_ids(node) and new.id in _primary_ids(node) for node in others
            )

        await wait_until(lambda: holds(settled), CHANGE_SECS, "a promoted replica")

    async def _following(self, replica: ClusterNode, primary: ClusterNode) -> None:
        await wait_until(lambda: holds(lambda: _follows(replica, primary)), CHANGE_SECS, "a following replica")

    # Faults

    async def _failover(self) -> Struck:
        """The clean way: the primary lets its replica catch up and hands over."""
        primary, replica = self._victim()
        ask(replica, "CLUSTER", "FAILOVER")
        await self._promoted(primary, replica)
        await self._following(primary, replica)
        return Struck(f"port {primary.port}")

    async def _killed(self) -> Struck:
        return await self._kill(*self._victim())

    async def _control_killed(self) -> Struck:
        return await self._kill(*self._victim(self._control_slot))

    async def _kill(self, primary: ClusterNode, replica: ClusterNode) -> Struck:
        await asyncio.to_thread(primary.kill)
        await self._promoted(primary, replica)
        await asyncio.to_thread(primary.start)
        await self._following(primary, replica)
        return Struck(f"port {primary.port}")

    async def _lagging(self) -> Struck:
        primary, replica = self._victim()
        with lagging(replica, primary):
            secs = self._dice.uniform(0.2, 2.0)
            await asyncio.sleep(secs)
            await asyncio.to_thread(primary.kill)
            await self._promoted(primary, replica)
        await asyncio.to_thread(primary.start)
        await self._following(primary, replica)
        return Struck(f"port {primary.port}, {secs:.1f} s behind")

    async def _from_a_snapshot(self) -> Struck:
        primary, replica = self._victim()
        secs = self._dice.uniform(0.3, 4.0)
        await roll_back(primary, secs)

        def joined() -> bool:  # the replica may have been promoted meanwhile
            return _follows(replica, primary) or _follows(primary, replica)

        await wait_until(lambda: holds(joined), CHANGE_SECS, "a primary and its replica")
        return Struck(f"port {primary.port}, {secs:.1f} s older")

    async def _frozen(self) -> Struck:
        return await self._freeze(*self._victim())

    async def _control_hangs(self) -> Struck:
        return await self._freeze(*self._victim(self._control_slot))

    async def _freeze(self, primary: ClusterNode, replica: ClusterNode) -> Struck:
        primary.freeze()
        try:
            await self._promoted(primary, replica)
        finally:
            primary.thaw()
        await self._following(primary, replica)
        return Struck(f"port {primary.port}")

    async def _frozen_briefly(self) -> Struck:
        """Too briefly for a failover."""
        primary, _ = self._victim()
        primary.freeze()
        secs = self._dice.uniform(0.1, 0.5)
        await asyncio.sleep(secs)
        primary.thaw()
        return Struck(f"port {primary.port}, {secs:.1f} s")

    async def _slot_moved(self) -> Struck:
        slot, target = self._move()
        keys = await self._setup.migrate_slot(slot, target)
        return Struck(f"slot {slot}, {keys} keys")

    async def _slot_moved_at_once(self) -> Struck:
        if not self._setup.migrates_atomically:
            return Struck("not offered by this server")
        slot, target = self._move()
        await self._setup.migrate_slot_atomically(slot, target)
        return Struck(f"slot {slot}")

    def _move(self) -> tuple[int, ClusterNode]:
        """Choose the slot of a shard or of the control keys, and another primary for it."""
        slot = self._dice.choice([*self._slots, self._control_slot])
        owner = self._setup.node_of(slot)
        return slot, self._dice.choice([node for node in self._owners() if node is not owner])


def _role(node: ClusterNode) -> str:
    return info(node, "replication")["role"] if node.running else ""


def _primary_ids(node: ClusterNode) -> set[str]:
    """Return the ids of those who serve slots, by the word of this node."""
    return {node_id for _, _, (_, _, node_id, *_), *_ in ask(node, "CLUSTER", "SLOTS")}


def _follows(replica: ClusterNode, primary: ClusterNode) -> bool:
    if not replica.running:
        return False
    about = info(replica, "replication")
    return bool(
        about["role"] == "slave" and about["master_link_status"] == "up" and int(about["master_port"]) == primary.port
    )
