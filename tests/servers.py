"""Commands to single Redis servers, for deployments that tests build of several servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_process import ServerProcess
from lifecycle.store.server_info import parse_info
from tests.waiting import block_until

START_SECS = 30.0
CHANGE_SECS = 40.0  # two sentinels that stand for election at once try again seconds later
_ANSWER_SECS = 2.0


def ask(server: ServerProcess, *command: Any) -> Any:
    """One command to one server, whatever its role; the reply as the server gives it, as text. Raises RedisError."""
    with _client(server) as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def info(server: ServerProcess, section: str) -> dict[str, str]:
    return parse_info(ask(server, "INFO", section))


@contextmanager
def _client(server: ServerProcess) -> Iterator[redis.Redis]:
    # The socket is surely this server's; a port might have been taken by another.
    url = server.unix_url if isinstance(server, EmbeddedRedis) else server.url
    client = redis.Redis.from_url(
        url, decode_responses=True, socket_timeout=_ANSWER_SECS, retry=Retry(NoBackoff(), 0), protocol=2
    )
    client.response_callbacks.clear()
    try:
        yield client
    finally:
        client.close()


def wait_for_servers(condition: Callable[[], bool], what: str) -> None:
    """Block until `condition` holds. Raises AssertionError after START_SECS."""
    block_until(lambda: holds(condition), what, START_SECS)


def holds(condition: Callable[[], bool]) -> bool:
    """Return the condition's result; False when a server does not answer or answers with an error."""
    try:
        return condition()
    except (RedisError, OSError):
        return False


def addresses(ports: Iterable[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)
