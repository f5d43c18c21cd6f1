"""Connects to the primary that Sentinels name. Every new connection asks them and checks that it reached a primary."""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from lifecycle.redis_url import RedisUrl
from lifecycle.store.password_file import use_password_file
from lifecycle.store.sockets import Guarded

_SENTINEL_OPTIONS = ("retry", "retry_on_error", "maint_notifications_config", "protocol")


class _Connection(Guarded, SentinelManagedConnection):
    """Checks the server's role, because a Sentinel may not know yet that a primary was demoted."""

    async def connect_to(self, address: tuple[str, int]) -> None:
        await cast(Any, super()).connect_to(address)
        try:
            await self.send_command("ROLE")
            role = (await self.read_response())[0]
        except BaseException:
            await self.disconnect()
            raise
        if role not in (b"master", "master"):
            await self.disconnect()
            raise RedisConnectionError("The server that the Sentinels name is not a primary")


class _TlsConnection(_Connection, SentinelManagedSSLConnection):
    pass


class _Pool(SentinelConnectionPool):
    """A pool that also closes its connections to the Sentinels."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def sentinel_client(redis_url: RedisUrl, options: dict[str, Any], password_file: str = "") -> Redis:
    """Return a client of the primary of `redis_url.service`; `options` are for each connection to it.

    `password_file` has the password of the primary, not of the Sentinels. Raises ValueError when the URL has one too.
    """
    given: dict[str, Any] = dict(parse_url(redis_url.node_url("sentinel.invalid", 1)))
    use_password_file(given, password_file)
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    asking: dict[str, Any] = {name: options[name] for name in _SENTINEL_OPTIONS}
    # They are asked one after the other. One that hangs must leave time for the others and for the primary.
    share_secs = options["socket_timeout"] / (len(redis_url.nodes) + 1)
    asking |= {"socket_timeout": share_secs, "socket_connect_timeout": share_secs}
    if redis_url.tls:
        asking |= {"ssl": True} | {name: value for name, value in given.items() if name.startswith("ssl_")}
    if redis_url.sentinel_username:
        asking["username"] = redis_url.sentinel_username
    if redis_url.sentinel_password:
        asking["password"] = redis_url.sentinel_password
    pool: SentinelConnectionPool = cast(Any, _Pool)(
        redis_url.service,
        cast(Any, Sentinel)(list(redis_url.nodes), sentinel_kwargs=asking),
        connection_class=_TlsConnection if redis_url.tls else _Connection,
        socket_keepalive=True,
        **(options | given),
    )
    return Redis.from_pool(pool)
