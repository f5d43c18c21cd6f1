"""Define the keys and messages that frontend and worker share."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

JOBS = "jobs"
GROUP = "workers"
CANCEL = "cancel"
INFLIGHT = "inflight"
RETENTION_SECS = 600
_MOST_CONNECTIONS = 10_000


def tokens_of(rid: str) -> str:
    return f"tokens:{rid}"


def connect(url: str) -> Redis:
    """Return a client without timers, whose pool never makes a caller wait."""
    return Redis.from_url(
        url,
        max_connections=_MOST_CONNECTIONS,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=None,
    )
