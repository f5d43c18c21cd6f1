"""Make Redis refuse commands for a moment, each time for a real cause.

Nothing is lost: what Redis has answered stays.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.permissions import needed_commands
from lifecycle.store.server_info import parse_info
from lifecycle.types import Role
from tests.chaos.soak.fault import Fault, Struck
from tests.chaos.soak.operator import Operator, operator
from tests.waiting import wait_until

_FORBIDDEN = ("-evalsha -eval", "-@write", "-@read", "-spublish")
_SINGLE = needed_commands(Role.FRONTEND)
_SNAPSHOT_SECS = 30.0

_Way = Callable[[Operator, EmbeddedRedis, float], AsyncIterator[None]]
"""Makes a server refuse commands; the caller says for how many seconds. It is broken until the iterator goes on."""


class Refusals:
    """`servers()`: the primaries of now; all of them refuse at once. `spared`: single commands that none may refuse."""

    def __init__(
        self, servers: Callable[[], Sequence[EmbeddedRedis]], dice: random.Random, spared: Collection[str] = ()
    ) -> None:
        self._servers = servers
        self._dice = dice
        self._single = [command for command in _SINGLE if command not in spared]

    def faults(self, *, but: Collection[str] = ()) -> list[Fault]:
        """Return them `but` for those that this deployment answers with a failover or does not allow."""
        ways: dict[str, _Way] = {
            "NOPERM": self._forbidden,
            "NOREPLICAS": self._without_replicas,
            "OOM": self._full,
            "MISCONF": self._cannot_snapshot,
            "BUSY": self._busy,
            "CLIENT PAUSE": self._paused,
            "NOAUTH": self._password,
            "READONLY": partial(self._demoted, stale="yes"),
            "MASTERDOWN": partial(self._demoted, stale="no"),
        }
        refused = [
            Fault(f"redis refuses: {name}", partial(self._for_a_moment, way))
            for name, way in ways.items()
            if name not in but
        ]
        return [
            *refused,
            Fault("client kill normal", partial(self._kill_clients, "normal")),
            Fault("client kill pubsub", partial(self._kill_clients, "pubsub")),
            Fault("script flush", self._flush_scripts),
        ]

    async def _for_a_moment(self, way: _Way) -> Struck:
        secs = self._dice.uniform(0.3, 3.0)
        broken = asynccontextmanager(way)
        async with AsyncExitStack() as stack:
            for server in self._servers():
                command = stack.enter_context(operator(server))
                await stack.enter_async_context(broken(command, server, secs))
            await asyncio.sleep(secs)
        return Struck(f"{secs:.1f} s")

    # Ways to be refused: broken until the generator goes on

    async def _forbidden(self, command: Operator, server: EmbeddedRedis, secs: float) -> AsyncIterator[None]:
        one = "-" + self._dice.choice(self._single).lower().replace(" ", "|")
        command("ACL", "SETUSER", "default", *self._dice.choice((*_FORBIDDEN, one, one)).split())
        yield
        command("ACL", "SETUSER", "default", "+@all")

    async def _without_replicas(self, command: Operator, server: EmbeddedRedis, secs: float) -> AsyncIterator[None]:
        command.config(min_replicas_to_write="3")
        yield
        command.config(min_replicas_to_write="0")

    async def _full(self, command: Operator, server: EmbeddedRedis, secs: float) -> AsyncIterator[None]:
        command.config(maxmemory=parse_info(command("INFO", "memory"))["used_memory"])
        yield
        command.config(maxmemory="0")

    async def _cannot_snapshot(self, command: Operator, server: EmbeddedRedis, secs: float) -> AsyncIterator[None]:
        """Put a directory in the place of the snapshot, so that the last step of writing one fails."""
        snapshot = server.directory / "dump.rdb"
        snapshot.unlink(missing_ok=True)
        (snapshot / "occupied").mkdir(parents=True)
        command.config(save="3600 1")
        try:
            await _snapshot(command, "err")
            yield
        finally:
            (snapshot / "occupied").rmdir()
            snapshot.rmdir()
            await _snapshot(command, "ok")
            command.config(save="")

    async def _paused(self, command: Operator, server: EmbeddedRedis, secs: float) -> AsyncIterator[None]:
        command("CLIENT", "PAUSE", int(secs * 1000), "ALL")
        yield

    async def _busy(self, command: Operator, server: EmbeddedRedis, secs: float) -> AsyncIterator[None]:
        """Run a script without end; it writes nothing, so it can be killed."""
        command.config(busy_reply_threshold="50")
        with operator(server) as script:
            running = asyncio.create_task(asyncio.to_thread(_run_for_ever, script), name="a busy script")
            try:
                await asyncio.sleep(0.2)
                yield
            finally:
                command("SCRIPT", "KILL")
                await running

    async def _password(self, command: Operator, server: EmbeddedRedis, secs: float) -> AsyncIterator[None]:
        """Set a password that nobody else knows, and close the connections that were made without one."""
        command.config(requirepass="soak")
        for kind in ("normal", "pubsub"):
            command("CLIENT", "KILL", "TYPE", kind)
        yield
        command.config(requirepass="")

    async def _demoted(
        self, command: Operator, server: EmbeddedRedis, secs: float, *, stale: str
    ) -> AsyncIterator[None]:
        """Make it a replica of a server that does not exist, and a primary again."""
        command.config(replica_serve_stale_data=stale)
        command("REPLICAOF", "127.0.0.1", 1)
        yield
        command("REPLICAOF", "NO", "ONE")
        command.config(replica_serve_stale_data="yes")

    # What closes connections or forgets scripts

    async def _kill_clients(self, kind: str) -> Struck:
        for server in self._servers():
            with operator(server) as command:
                command("CLIENT", "KILL", "TYPE", kind)
        return Struck("all")

    async def _flush_scripts(self) -> Struck:
        for server in self._servers():
            with operator(server) as command:
                command("SCRIPT", "FLUSH")
        return Struck("all")


def _run_for_ever(script: Operator) -> None:
    try:
        script("EVAL", "while true do end", 0)
    except Exception as killed:
        if "SCRIPT KILL" not in str(killed) and "Script killed" not in str(killed):
            raise


async def _snapshot(command: Operator, outcome: str) -> None:
    """Take one, and wait until it has ended as it must."""

    def ended() -> bool:
        about = parse_info(command("INFO", "persistence"))
        return about["rdb_bgsave_in_progress"] == "0" and about["rdb_last_bgsave_status"] == outcome

    command("BGSAVE")
    await wait_until(ended, _SNAPSHOT_SECS, f"a snapshot that ends as {outcome!r}")
