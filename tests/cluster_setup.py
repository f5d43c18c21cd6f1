"""A Redis Cluster for a test.

    with ClusterSetup(replicas=1) as setup: Settings(redis_url=setup.url) …; await setup.migrate_slot(slot, node)

It runs on any Redis or Valkey from 7.0 on. Starting blocks for some seconds and is synchronous, so that any fixture
can do it; what happens under load is async.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

from redis.exceptions import RedisError

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_binary import ServerBinary
from lifecycle.local.redis_process import free_port
from lifecycle.store.server_info import parse_info
from tests.servers import CHANGE_SECS, addresses, ask, holds, info, wait_for_servers
from tests.waiting import wait_until

SLOTS = 16384


class ClusterNode(EmbeddedRedis):
    """A server in cluster mode, with a bus port that fits beside any other."""

    def __init__(self, binary: ServerBinary | None, config: Mapping[str, str]) -> None:
        super().__init__(binary, port=0, config=config)
        self.id = ""
        self._bus_port = 0

    @property
    def bus_port(self) -> int:
        return self._bus_port

    def _choose_port(self, again: bool) -> bool:
        chosen = super()._choose_port(again)
        if chosen:
            self._bus_port = free_port()
            self._config["cluster-port"] = str(self._bus_port)
        return chosen


class ClusterSetup:
    """Primaries that share the slots evenly, each with `replicas` replicas.

    `primaries[i]` owns the i-th part of the slots at first; `node_of(slot)` says who does now.
    """

    def __init__(
        self,
        binary: ServerBinary | None = None,
        *,
        primaries: int = 3,
        replicas: int = 0,
        node_timeout_ms: int = 1000,
        config: Mapping[str, str] | None = None,
    ) -> None:
        common = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(node_timeout_ms),
            "cluster-require-full-coverage": "no",  # what a dead primary does not own goes on
            "cluster-replica-validity-factor": "0",  # a replica always stands for election
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            **(config or {}),
        }
        self.primaries = [ClusterNode(binary, common) for _ in range(primaries)]
        self.replicas = [[ClusterNode(binary, common) for _ in range(replicas)] for _ in range(primaries)]
        self.nodes = [*self.primaries, *(node for group in self.replicas for node in group)]
        self._stack = ExitStack()
        self._by_id: dict[str, ClusterNode] = {}

    @property
    def url(self) -> str:
        return f"redis+cluster://{addresses(node.port for node in self.primaries)}"

    def start(self) -> None:
        """Returns once every node knows all the others and each of them thinks that the cluster works."""
        with ExitStack() as stack:
            for epoch, node in enumerate(self.nodes, start=1):
                stack.enter_context(node)
                node.id = ask(node, "CLUSTER", "MYID")
                ask(node, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
            self._by_id = {node.id: node for node in self.nodes}
            bounds = [SLOTS * part // len(self.primaries) for part in range(len(self.primaries) + 1)]
            for node, first, end in zip(self.primaries, bounds[:-1], bounds[1:], strict=True):
                ask(node, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            for node in self.nodes:  # everybody meets everybody: gossip would take seconds
                for other in self.nodes:
                    if other is not node:
                        ask(node, "CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
            wait_for_servers(self._acquainted, "nodes that know each other")
            for primary, group in zip(self.primaries, self.replicas, strict=True):
                for replica in group:
                    wait_for_servers(partial(_replicate, replica, primary), "a replica's assignment")
            wait_for_servers(self._complete, "a cluster that works")
            self._stack = stack.pop_all()

    def stop(self) -> None:
        self._stack.close()

    def node_of(self, slot: int, witness: ClusterNode | None = None) -> ClusterNode:
        """The primary of a slot, by the word of a node that runs."""
        for first, last, (_, _, node_id, *_), *_ in ask(witness or self._witness(), "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self._by_id[node_id]
        raise AssertionError(f"nobody owns slot {slot}")

    def ask_slot(self, slot: int, *command: Any) -> Any:
        return ask(self.node_of(slot), *command)

    def keys_in(self, slot: int) -> int:
        return int(self.ask_slot(slot, "CLUSTER", "COUNTKEYSINSLOT", slot))

    async def migrate_slot(
        self, slot: int, target: ClusterNode, *, keys_at_once: int = 1, pause_secs: float = 0.005
    ) -> int:
        """The classic way, key by key, with time in between for clients to meet a slot that is in two places."""
        source, moved = self.node_of(slot), 0
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, keys_at_once):
            ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
            await asyncio.sleep(pause_secs)
        for node in (target, source, *self.primaries):
            if node.running and info(node, "replication")["role"] == "master":
                ask(node, "CLUSTER", "SETSLOT", slot, "NODE", target.id)
        await self.known_everywhere(slot, target)
        return moved

    @property
    def migrates_atomically(self) -> bool:
        return self.primaries[0].binary.name == "valkey" and self.primaries[0].binary.version >= (9, 0, 0)

    async def migrate_slot_atomically(self, slot: int, target: ClusterNode) -> None:
        """Migrate as Valkey 9 does by itself: the slot gets its new owner in one moment, with all its keys."""
        source = self.node_of(slot)
        ask(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        await self.known_everywhere(slot, target)

    async def known_everywhere(self, slot: int, owner: ClusterNode) -> None:
        def known() -> bool:
            return all(self.node_of(slot, node) is owner for node in self.nodes if node.running)

        await wait_until(lambda: holds(known), CHANGE_SECS, f"slot {slot} at its new owner")

    async def taken_over(self, primary: ClusterNode) -> ClusterNode:
        """Wait until a replica of this primary (killed or frozen) serves its slots everywhere; returns that replica."""
        index = self.primaries.index(primary)
        slot = SLOTS * index // len(self.primaries)
        others = [node for node in self.nodes if node is not primary and node.running]

        def promoted() -> ClusterNode | None:
            owners = {self.node_of(slot, node) for node in others}
            serve = all(_cluster_info(node)["cluster_state"] == "ok" for node in others)
            return owners.pop() if serve and len(owners) == 1 and primary not in owners else None

        def found() -> ClusterNode | None:
            try:
                return promoted()
            except (RedisError, OSError):
                return None

        return await wait_until(found, CHANGE_SECS, "a replica that took over")

    def _witness(self) -> ClusterNode:
        return next(node for node in self.nodes if node.running)

    def _acquainted(self) -> bool:
        for node in self.nodes:
            lines = [line.split() for line in ask(node, "CLUSTER", "NODES").splitlines()]
            if {node_id for node_id, *_ in lines} != set(self._by_id):
                return False
            if any("handshake" in flags or link != "connected" for _, _, flags, _, _, _, _, link, *_ in lines):
                return False
        return True

    def _complete(self) -> bool:
        for node in self.nodes:
            about = _cluster_info(node)
            if about["cluster_state"] != "ok" or int(about["cluster_slots_ok"]) != SLOTS:
                return False
            if sum(len(members) for _, _, *members in ask(node, "CLUSTER", "SLOTS")) != len(self.nodes):
                return False
        links = (info(replica, "replication") for group in self.replicas for replica in group)
        return all(about["role"] == "slave" and about["master_link_status"] == "up" for about in links)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _cluster_info(node: ClusterNode) -> dict[str, str]:
    return parse_info(ask(node, "CLUSTER", "INFO"))


def _replicate(replica: ClusterNode, primary: ClusterNode) -> bool:
    return bool(ask(replica, "CLUSTER", "REPLICATE", primary.id))
