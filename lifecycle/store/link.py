"""One connection to Redis, whose replies come in the order of its commands.

redis-py opens it (address, TLS, credentials, database, Sentinels) and hands over its transport. From then on there is
no stream, no task and no timer between a command and its socket: a pipeline costs one write, its replies one read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from lifecycle.patience import Watchdog

Reply = asyncio.Future[Any]
_NOTHING = object()  # of a reply that has not come whole


class Link(asyncio.Protocol):
    """A reply that is an error is an exception, as a value. `on_lost` is called once, unless its owner has closed it:
    with why, and with the replies that will not come; whether their commands were executed is then unknown.
    """

    def __init__(
        self, connection: Any, timeout_secs: float, on_idle: Callable[[], None],
        on_lost: Callable[[Exception, Sequence[Reply]], None],
    ) -> None:  # fmt: skip
        """`connection`: one of redis-py's that is connected and on which nothing is awaited."""
        self._connection = connection
        self._transport = cast(asyncio.WriteTransport, connection._writer.transport)
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=_NOTHING
        )
        self._awaited: deque[Reply] = deque()
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._closed = False
        self._watchdog = Watchdog(timeout_secs, self._on_silent)
        self._transport.set_protocol(self)

    @classmethod
    async def open(
        cls, client: Redis, timeout_secs: float, on_idle: Callable[[], None],
        on_lost: Callable[[Exception, Sequence[Reply]], None],
    ) -> Link:  # fmt: skip
        """Raises redis-py's errors and OSError. `timeout_secs`: how long each reply may take."""
        pool: Any = client.connection_pool
        connection = pool.make_connection()
        try:
            await connection.connect()
            return cls(connection, timeout_secs, on_idle, on_lost)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    @property
    def busy(self) -> bool:
        return bool(self._awaited)

    def send(self, commands: Sequence[bytes], replies: Sequence[Reply]) -> None:
        """One pipeline of packed commands. Who no longer waits for a reply has cancelled it."""
        self._awaited.extend(replies)
        self._watchdog.begin()
        try:
            self._transport.write(commands[0] if len(commands) == 1 else b"".join(commands))
        except RuntimeError as failure:  # uvloop's word for a connection that was reset
            self._lose(RedisConnectionError(f"the connection was closed: {failure}"))

    def close(self) -> Sequence[Reply]:
        """Returns the replies that will not come."""
        self._closed = True
        self._watchdog.close()
        unanswered, self._awaited = self._awaited, deque()
        self._connection._close()  # the transport, and with it redis-py's notion of a connection
        return unanswered

    # asyncio calls these

    def data_received(self, data: bytes) -> None:
        parser, awaited = self._parser, self._awaited
        try:
            parser.feed(data)
            while (value := parser.gets()) is not _NOTHING:
                reply = awaited.popleft()
                if not reply.done():
                    reply.set_result(value)
        except IndexError:
            self._lose(InvalidResponse("Redis has answered what nobody asked"))
            return
        except Exception as failure:  # no protocol that we know
            self._lose(failure)
            return
        if awaited:
            self._watchdog.renew()
        else:
            self._watchdog.rest()
            self._on_idle()

    def eof_received(self) -> None:
        self._lose(RedisConnectionError("Redis has closed the connection"))

    def connection_lost(self, failure: Exception | None) -> None:
        self._lose(RedisConnectionError(str(failure) if failure else "the connection was closed"))

    def _on_silent(self) -> None:
        self._lose(RedisTimeoutError())

    def _lose(self, failure: Exception) -> None:
        if not self._closed:
            self._on_lost(failure, self.close())
