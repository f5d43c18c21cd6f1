"""redis-py's connections, made to fail with redis-py's errors only.

A transport of uvloop that has been reset raises RuntimeError on the next write. redis-py lets it through, past every
handler of connection errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    _Base = AbstractConnection
else:
    _Base = object


class Guarded(_Base):
    """Mixed in before a connection class."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as failure:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"the connection was closed: {failure}") from failure


class TcpConnection(Guarded, Connection):
    pass


class TlsConnection(Guarded, SSLConnection):
    pass


class UnixConnection(Guarded, UnixDomainSocketConnection):
    pass


GUARDED: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}
