"""Deployments of several servers for a test: a primary with replica and sentinels, and a Redis Cluster.

    with SentinelSetup() as setup: Settings(redis_url=setup.url) …; await setup.fail_over()
    with ClusterSetup(replicas=1) as setup: Settings(redis_url=setup.url) …; await setup.migrate_slot(slot, node)

Both run on any Redis or Valkey from 7.0 on. Starting blocks for some seconds and is synchronous, so that any fixture
can do it; what happens under load is async.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_binary import ServerBinary
from lifecycle.local.redis_process import ListenAddress, ServerProcess, UnixAddress, free_port
from lifecycle.store.server_info import parse_info
from tests.waiting import wait_until

SLOTS = 16384
MASTER_NAME = "mymaster"
START_SECS = 30.0
CHANGE_SECS = 40.0  # two sentinels that stand for election at once try again seconds later
_ANSWER_SECS = 2.0
_POLL_SECS = 0.02


def ask(server: ServerProcess, *command: Any) -> Any:
    """One command to one server, whatever its role; the reply as the server gives it, as text. Raises RedisError."""
    with _client(server) as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def info(server: ServerProcess, section: str) -> dict[str, str]:
    return parse_info(ask(server, "INFO", section))


@contextmanager
def _client(server: ServerProcess) -> Iterator[redis.Redis]:
    # The socket is surely this server's; a port might have been taken by another.
    url = server.unix_url if isinstance(server, EmbeddedRedis | Sentinel) else server.url
    client = redis.Redis.from_url(
        url, decode_responses=True, socket_timeout=_ANSWER_SECS, retry=Retry(NoBackoff(), 0), protocol=2
    )
    client.response_callbacks.clear()
    try:
        yield client
    finally:
        client.close()


def _wait(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + START_SECS
    while not _holds(condition):
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what} did not come true within {START_SECS:g} s")
        time.sleep(_POLL_SECS)


def _holds(condition: Callable[[], bool]) -> bool:
    """An answer that does not come, or is an error, is not yet the one waited for."""
    try:
        return condition()
    except (RedisError, OSError):
        return False


class Sentinel(ServerProcess):
    """One `redis-server --sentinel`. What it learns is kept in its configuration, over `kill` and `start`."""

    def __init__(self, binary: ServerBinary, watched: str) -> None:
        """`watched`: the lines `sentinel …` of its configuration."""
        super().__init__()
        self._binary = binary
        self._watched = watched
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return self._socket.url

    @property
    def server(self) -> str:
        return f"sentinel of {self._binary}"

    @property
    def _socket(self) -> UnixAddress:
        return UnixAddress(self.directory / "redis.sock")

    def _probe(self) -> ListenAddress:
        return self._socket

    def _choose_port(self, again: bool) -> bool:
        if again or self.port == 0:
            self.port = free_port()
            return True
        return False

    def _argv(self) -> list[str]:
        configuration = self.directory / "sentinel.conf"
        if not configuration.exists() or f"port {self.port}\n" not in configuration.read_text():
            configuration.write_text(
                f"port {self.port}\nbind 127.0.0.1\nprotected-mode no\ndaemonize no\ndir {self.directory}\n"
                f"unixsocket {self._socket.path}\n{self._watched}"
            )
        return [str(self._binary.path), str(configuration), "--sentinel"]


class SentinelSetup:
    """A primary, a replica, and three sentinels of which two must agree.

    `primary` and `replica` say what is true after the last change that was waited for; `servers` are both, for ever.
    """

    def __init__(
        self,
        binary: ServerBinary | None = None,
        *,
        config: Mapping[str, str] | None = None,
        down_after_ms: int = 600,
        failover_timeout_ms: int = 2000,
    ) -> None:
        # The ping must come more often than the timeout, or an idle primary loses its replica over and over.
        replication = {"repl-diskless-sync-delay": "0", "repl-timeout": "5", "repl-ping-replica-period": "1"}
        common = {**replication, **(config or {})}
        self.servers = [EmbeddedRedis(binary, port=0, config=common) for _ in range(2)]
        self.primary, self.replica = self.servers
        self.sentinels: list[Sentinel] = []
        self._binary = self.primary.binary
        self._limits = {
            "down-after-milliseconds": down_after_ms,
            "failover-timeout": failover_timeout_ms,
            "parallel-syncs": 1,
        }
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """Of the deployment, whoever is primary."""
        return f"redis+sentinel://{_addresses(s.port for s in self.sentinels)}/{MASTER_NAME}/0"

    def start(self) -> None:
        """Returns once the replica follows and every sentinel knows all the others."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            ask(self.replica, "REPLICAOF", "127.0.0.1", self.primary.port)
            _wait(lambda: _follows(self.replica, self.primary), "the replica's link")
            watched = f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.primary.port} 2\n" + "".join(
                f"sentinel {name} {MASTER_NAME} {value}\n" for name, value in self._limits.items()
            )
            for _ in range(3):
                sentinel = stack.enter_context(Sentinel(self._binary, watched))
                self.sentinels.append(sentinel)
                _hasten(sentinel)
            _wait(self._complete, "sentinels that know each other")
            self._stack = stack.pop_all()

    def stop(self) -> None:
        self._stack.close()
        self.sentinels.clear()

    async def fail_over(self) -> None:
        """The clean way: the replica is promoted on command, the old primary follows it."""
        leader, old, promoted = self.sentinels[0], self.primary, self.replica

        def ordered() -> bool:
            # A sentinel gives a failover up that a stalled machine made late, and says so to nobody: ask again.
            state = _master_state(leader)
            if int(state["port"]) == old.port and "failover_in_progress" not in state["flags"]:
                ask(leader, "SENTINEL", "FAILOVER", MASTER_NAME)
            return int(state["port"]) == promoted.port

        await wait_until(lambda: _holds(ordered), CHANGE_SECS, "a promoted replica")
        await self.agreed()
        await self.rejoined()

    async def agreed(self) -> None:
        """Wait until every sentinel names the present replica as primary, and it is one; the two change names then."""
        promoted = self.replica

        def settled() -> bool:
            named = {tuple(_master_address(sentinel)) for sentinel in self.sentinels if sentinel.running}
            return named == {("127.0.0.1", str(promoted.port))} and info(promoted, "replication")["role"] == "master"

        await wait_until(lambda: _holds(settled), CHANGE_SECS, "an agreed new primary")
        self.primary, self.replica = self.replica, self.primary

    async def rejoined(self) -> None:
        """Wait until the present replica (killed and started, or thawed) follows the primary."""
        await wait_until(
            lambda: _holds(lambda: _follows(self.replica, self.primary)), CHANGE_SECS, "a following replica"
        )

    def _complete(self) -> bool:
        def knows_all(sentinel: Sentinel) -> bool:
            state = _master_state(sentinel)
            return (state["num-slaves"], state["num-other-sentinels"], state["flags"]) == ("1", "2", "master")

        return all(knows_all(sentinel) for sentinel in self.sentinels)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _hasten(sentinel: Sentinel) -> None:
    """Its own periods are in seconds and cannot be configured; and a machine that stalls must not stop it for 30 s.

    A sentinel makes a replica of whatever has been primary against its belief for four publish periods; that must be
    longer than the second in which the leader of a failover looks at the one it has promoted.
    """
    quick = {
        "INFO-PERIOD": 200,
        "PING-PERIOD": 100,
        "ASK-PERIOD": 100,
        "PUBLISH-PERIOD": 600,
        "TILT-TRIGGER": 20000,
        "TILT-PERIOD": 1000,
        "ELECTION-TIMEOUT": 2000,
    }
    for name, value in quick.items():
        ask(sentinel, "SENTINEL", "DEBUG", name, value)


def _master_address(sentinel: Sentinel) -> Sequence[str]:
    found: Sequence[str] = ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
    return found


def _master_state(sentinel: Sentinel) -> dict[str, str]:
    flat = ask(sentinel, "SENTINEL", "MASTER", MASTER_NAME)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _follows(replica: EmbeddedRedis, primary: EmbeddedRedis) -> bool:
    about = info(replica, "replication")
    return bool(
        about["role"] == "slave"
        and about["master_link_status"] == "up"
        and int(about["master_port"]) == primary.port
        and info(primary, "replication")["role"] == "master"
    )


def _addresses(ports: Iterator[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


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
        return f"redis+cluster://{_addresses(node.port for node in self.primaries)}"

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
            _wait(self._acquainted, "nodes that know each other")
            for primary, group in zip(self.primaries, self.replicas, strict=True):
                for replica in group:
                    _wait(partial(_replicate, replica, primary), "a replica's assignment")
            _wait(self._complete, "a cluster that works")
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
        """As Valkey 9 does it by itself: the slot changes hands in one moment, with all its keys."""
        source = self.node_of(slot)
        ask(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        await self.known_everywhere(slot, target)

    async def known_everywhere(self, slot: int, owner: ClusterNode) -> None:
        def known() -> bool:
            return all(self.node_of(slot, node) is owner for node in self.nodes if node.running)

        await wait_until(lambda: _holds(known), CHANGE_SECS, f"slot {slot} at its new owner")

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
