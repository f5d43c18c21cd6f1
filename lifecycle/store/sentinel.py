"""Connects to the primary that Sentinels name. Every new connection asks them and checks that it reached a primary."""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from lifecycle.redis_url import RedisUrl
from lifecycle.store.password_file import PasswordFiles, use_password_file
from lifecycle.store.sockets import Guarded, TcpConnection, TlsConnection

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


class _ManagedTlsConnection(_Connection, SentinelManagedSSLConnection):
    pass


class _Pool(SentinelConnectionPool):
    """A pool that also closes its connections to the Sentinels."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def sentinel_client(redis_url: RedisUrl, options: dict[str, Any], passwords: PasswordFiles) -> Redis:
    """Return a client of the primary of `redis_url.service`; `options` are for each connection to it.

    Raises ValueError when the URL has a password that a file is to have.
    """
    given: dict[str, Any] = dict(parse_url(redis_url.node_url("sentinel.invalid", 1)))
    use_password_file(given, passwords.redis)
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    asking: dict[str, Any] = {name: options[name] for name in _SENTINEL_OPTIONS}
    # They are asked one after the other. One that hangs must leave time for the others and for the primary.
    share_secs = options["socket_timeout"] / (len(redis_url.nodes) + 1)
    asking |= {"socket_timeout": share_secs, "socket_connect_timeout": share_secs, "socket_keepalive": True}
    if redis_url.tls:
        asking |= {name: value for name, value in given.items() if name.startswith("ssl_")}
    if redis_url.sentinel_username:
        asking["username"] = redis_url.sentinel_username
    if redis_url.sentinel_password:
        asking["password"] = redis_url.sentinel_password
    use_password_file(asking, passwords.sentinels, of_sentinels=True)
    sentinels = cast(Any, Sentinel)([])
    sentinels.sentinels = [_asked(host, port, redis_url.tls, asking) for host, port in redis_url.nodes]
    pool: SentinelConnectionPool = cast(Any, _Pool)(
        redis_url.service,
        sentinels,
        connection_class=_ManagedTlsConnection if redis_url.tls else _Connection,
        socket_keepalive=True,
        **(options | given),
    )
    return Redis.from_pool(pool)


def _asked(host: str, port: int, tls: bool, options: dict[str, Any]) -> Redis:
    """Return a client of one Sentinel. redis-py would make its own, whose connections are not guarded."""
    kind = TlsConnection if tls else TcpConnection
    return Redis.from_pool(ConnectionPool(kind, host=host, port=port, **options))
