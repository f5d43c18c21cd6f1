"""Break the connections of one replica to every server, where no proxy can stand between them.

Sentinels and the nodes of a Redis Cluster tell the replicas the servers' own addresses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from redis.exceptions import ResponseError

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.chaos.bench import Bench
from tests.chaos.soak.fault import Fault, Struck
from tests.chaos.soak.operator import operator
from tests.cluster import Process

_AGAIN_SECS = 0.02


class ConnectionFaults:
    """`servers()`: those that run now."""

    def __init__(self, bench: Bench, servers: Callable[[], Sequence[EmbeddedRedis]], dice: random.Random) -> None:
        self._bench = bench
        self._servers = servers
        self._dice = dice

    def faults(self) -> list[Fault]:
        return [Fault("link reset", self._reset), Fault("link cut", self._cut)]

    def _any(self) -> Process:
        return self._dice.choice([*self._bench.workers, *self._bench.frontends])

    async def _reset(self) -> Struck:
        victim = self._any()
        await self._close_for(victim, 0.0)
        return Struck(victim.log.stem)

    async def _cut(self) -> Struck:
        """Close each connection as soon as it is seen."""
        victim, secs = self._any(), self._dice.uniform(0.2, 5.0)
        await self._close_for(victim, secs)
        return Struck(f"{victim.log.stem}, {secs:.1f} s")

    async def _close_for(self, victim: Process, secs: float) -> None:
        until = time.monotonic() + secs
        with ExitStack() as stack:
            commands = [stack.enter_context(operator(server)) for server in self._servers()]
            while True:
                for port in _local_ports(victim.pid):
                    for command in commands:
                        try:
                            command("CLIENT", "KILL", f"127.0.0.1:{port}")
                        except ResponseError as failure:
                            if "No such client" not in str(failure):
                                raise
                if time.monotonic() >= until:
                    return
                await asyncio.sleep(_AGAIN_SECS)


def _local_ports(pid: int) -> set[int]:
    """Return the ports of the IPv4 sockets of a process."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[9] in inodes}
