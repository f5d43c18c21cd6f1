"""The primary that Sentinels name: every new connection asks them, and checks that it has reached a primary."""

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

from lifecycle.redis_url import Address
from lifecycle.store.sockets import Guarded

_SENTINEL_OPTIONS = ("retry", "retry_on_error", "maint_notifications_config", "protocol")


class _Connection(Guarded, SentinelManagedConnection):
    """A Sentinel may not know yet that a primary was demoted; the server itself does."""

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
            raise RedisConnectionError("the server that the Sentinels name is no primary")


class _TlsConnection(_Connection, SentinelManagedSSLConnection):
    pass


class _Pool(SentinelConnectionPool):
    """Owns its connections to the Sentinels."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def sentinel_client(address: Address, options: dict[str, Any]) -> Redis:
    """A client of the primary of `address.service`; `options` are those of each connection."""
    given: dict[str, Any] = dict(parse_url(address.node_url("sentinel.invalid", 1)))
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    asking: dict[str, Any] = {name: options[name] for name in _SENTINEL_OPTIONS}
    # They are asked one after the other: one that hangs must leave time for the others, and for the primary.
    share_secs = options["socket_timeout"] / (len(address.nodes) + 1)
    asking |= {"socket_timeout": share_secs, "socket_connect_timeout": share_secs}
    if address.tls:
        asking |= {"ssl": True} | {name: value for name, value in given.items() if name.startswith("ssl_")}
    if address.sentinel_username:
        asking["username"] = address.sentinel_username
    if address.sentinel_password:
        asking["password"] = address.sentinel_password
    pool: SentinelConnectionPool = cast(Any, _Pool)(
        address.service,
        cast(Any, Sentinel)(list(address.nodes), sentinel_kwargs=asking),
        connection_class=_TlsConnection if address.tls else _Connection,
        socket_keepalive=True,
        **(options | given),
    )
    return Redis.from_pool(pool)
