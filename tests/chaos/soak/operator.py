"""Give commands to one Redis server as an operator does, over a connection that outlives what they change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lifecycle.local.embedded_redis import EmbeddedRedis

_ANSWER_SECS = 10.0


class Operator:
    """Send commands synchronously: each takes a moment, and nothing may come in between."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def __call__(self, *command: Any) -> Any:
        return self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    def config(self, **values: str) -> None:
        """`config(min_replicas_to_write="3")`."""
        for name, value in values.items():
            self("CONFIG", "SET", name.replace("_", "-"), value)


@contextmanager
def operator(server: EmbeddedRedis) -> Iterator[Operator]:
    """Connect over the server's unix socket, as a user who is refused nothing by what he does himself."""
    client = redis.Redis.from_url(
        server.unix_url,
        single_connection_client=True,
        decode_responses=True,
        socket_timeout=_ANSWER_SECS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    client.response_callbacks.clear()
    try:
        yield Operator(client)
    finally:
        client.close()
