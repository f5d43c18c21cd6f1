"""Connection classes of redis-py that raise only redis-py's errors.

A transport of uvloop that was reset raises RuntimeError on the next write. redis-py does not turn it into a connection
error, so no handler of connection errors would see it.
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
    """A mixin, placed before a connection class, that turns the RuntimeError into a connection error."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as failure:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"The connection was closed: {failure}") from failure


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
