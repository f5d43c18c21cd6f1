"""A primary with a replica and sentinels, for a test.

    with SentinelSetup() as setup: Settings(redis_url=setup.url) …; await setup.fail_over()

It runs on any Redis or Valkey from 7.0 on. Starting blocks for some seconds and is synchronous, so that any fixture
can do it; what happens under load is async.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Self

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_binary import ServerBinary
from tests.servers import CHANGE_SECS, addresses, ask, holds, info, wait_for_servers
from tests.waiting import wait_until

MASTER_NAME = "mymaster"


class Sentinel(EmbeddedRedis):
    """One `redis-server --sentinel`. What it learns is kept in its configuration, over `kill` and `start`."""

    def __init__(self, binary: ServerBinary, watched: str) -> None:
        """`watched`: the lines `sentinel …` of its configuration."""
        super().__init__(binary, port=0)
        self._watched = watched

    @property
    def server(self) -> str:
        return f"sentinel of {self.binary}"

    def _argv(self) -> list[str]:
        configuration = self.directory / "sentinel.conf"
        if not configuration.exists() or f"port {self.port}\n" not in configuration.read_text():
            configuration.write_text(
                f"port {self.port}\nbind 127.0.0.1\nprotected-mode no\ndaemonize no\ndir {self.directory}\n"
                f"unixsocket {self._socket.path}\n{self._watched}"
            )
        return [str(self.binary.path), str(configuration), "--sentinel"]


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
        """The URL of the deployment, whichever server is the primary."""
        return f"redis+sentinel://{addresses(s.port for s in self.sentinels)}/{MASTER_NAME}/0"

    def start(self) -> None:
        """Returns once the replica follows and every sentinel knows all the others."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            ask(self.replica, "REPLICAOF", "127.0.0.1", self.primary.port)
            wait_for_servers(lambda: _follows(self.replica, self.primary), "the replica's link")
            watched = f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.primary.port} 2\n" + "".join(
                f"sentinel {name} {MASTER_NAME} {value}\n" for name, value in self._limits.items()
            )
            for _ in range(3):
                sentinel = stack.enter_context(Sentinel(self._binary, watched))
                self.sentinels.append(sentinel)
                _hasten(sentinel)
            wait_for_servers(self._complete, "sentinels that know each other")
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

        await wait_until(lambda: holds(ordered), CHANGE_SECS, "a promoted replica")
        await self.agreed()
        await self.rejoined()

    async def agreed(self) -> None:
        """Wait until every sentinel names the present replica as primary, and it is one; the two change names then."""
        promoted = self.replica

        def settled() -> bool:
            named = {tuple(_master_address(sentinel)) for sentinel in self.sentinels if sentinel.running}
            return named == {("127.0.0.1", str(promoted.port))} and info(promoted, "replication")["role"] == "master"

        await wait_until(lambda: holds(settled), CHANGE_SECS, "an agreed new primary")
        self.primary, self.replica = self.replica, self.primary

    async def rejoined(self) -> None:
        """Wait until the present replica (killed and started, or thawed) follows the primary."""
        await wait_until(
            lambda: holds(lambda: _follows(self.replica, self.primary)), CHANGE_SECS, "a following replica"
        )

    async def settled(self) -> None:
        """Wait until every sentinel names the same primary and the other server follows it, whichever that is."""

        def found() -> bool:
            named = {str(_master_address(sentinel)[1]) for sentinel in self.sentinels if sentinel.running}
            one, other = self.servers
            primary, replica = (one, other) if named == {str(one.port)} else (other, one)
            if named != {str(primary.port)} or not _follows(replica, primary):
                return False
            self.primary, self.replica = primary, replica
            return True

        await wait_until(lambda: holds(found), CHANGE_SECS, "an agreed primary with a replica")

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
    longer than the second in which the leader of a failover polls the one it has promoted.
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
