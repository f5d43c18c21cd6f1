"""Connections to Redis without redis-py between a command and its socket.

redis-py opens one (address, TLS, credentials, database, Sentinels) and hands over its transport. From then on there is
no stream, no task and no timer on the way: a pipeline costs one write, its replies one read.

- `Link`: replies come in the order of the commands.
- `PushLink`: whatever comes is handed on, read by read; a subscription's connection.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from lifecycle.aio.watchdog import Watchdog

Reply = asyncio.Future[Any]
_NOTHING = object()  # of a reply that has not come whole


async def connected(client: Redis) -> Any:
    """One of redis-py's connections, on which nothing is awaited. Raises its errors and OSError."""
    pool: Any = client.connection_pool
    connection = pool.make_connection()
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


class _Wire(asyncio.Protocol):
    """The transport and the parser. It is lost once, unless its owner has closed it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transport = cast(asyncio.WriteTransport, connection._writer.transport)
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=_NOTHING
        )
        self._closed = False
        self._transport.set_protocol(self)

    @abstractmethod
    def _lose(self, failure: Exception) -> None: ...

    def _write(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except RuntimeError as failure:  # uvloop's word for a connection that was reset
            self._lose(RedisConnectionError(f"the connection was closed: {failure}"))

    def _shut(self) -> None:
        self._closed = True
        self._connection._close()  # the transport, and with it redis-py's notion of a connection

    # asyncio calls these

    def eof_received(self) -> None:
        self._lose(RedisConnectionError("Redis has closed the connection"))

    def connection_lost(self, failure: Exception | None) -> None:
        self._lose(RedisConnectionError(str(failure) if failure else "the connection was closed"))


class Link(_Wire):
    """A reply that is an error is an exception, as a value. `on_lost` is called with why the connection was lost, and
    with the replies that will not come; whether their commands were executed is then unknown.
    """

    def __init__(
        self,
        connection: Any,
        timeout_secs: float,
        on_idle: Callable[[], None],
        on_lost: Callable[[Exception, Sequence[Reply]], None],
    ) -> None:
        """`connection`: from `connected()`. `timeout_secs`: how long each reply may take."""
        super().__init__(connection)
        self._awaited: deque[Reply] = deque()
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._watchdog = Watchdog(timeout_secs, self._on_silent)

    @property
    def closed(self) -> bool:
        """By its owner, or lost."""
        return self._closed

    @property
    def busy(self) -> bool:
        return bool(self._awaited)

    def send(self, commands: Sequence[bytes], replies: Sequence[Reply]) -> None:
        """One pipeline of packed commands. Who no longer waits for a reply has cancelled it."""
        self._awaited.extend(replies)
        self._watchdog.begin()
        self._write(commands[0] if len(commands) == 1 else b"".join(commands))

    def close(self) -> Sequence[Reply]:
        """Returns the replies that will not come."""
        self._watchdog.close()
        unanswered, self._awaited = self._awaited, deque()
        self._shut()
        return unanswered

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

    def _on_silent(self) -> None:
        self._lose(RedisTimeoutError())

    def _lose(self, failure: Exception) -> None:
        if not self._closed:
            self._on_lost(failure, self.close())


class PushLink(_Wire):
    """`on_push` is given everything that came in one read. `lost` resolves to why the connection was lost."""

    def __init__(self, connection: Any, on_push: Callable[[list[Any]], None]) -> None:
        """`connection`: from `connected()`."""
        super().__init__(connection)
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._on_push = on_push

    def send(self, *args: str) -> None:
        self._write(hiredis.pack_command(cast(Any, args)))

    def close(self) -> None:
        self._shut()

    def drop(self, why: Exception) -> None:
        """Close it as if it were lost."""
        self._lose(why)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            values: list[Any] = []
            while (value := self._parser.gets()) is not _NOTHING:
                values.append(value)
            if values:
                self._on_push(values)
        except Exception as failure:  # no protocol that we know
            self._lose(failure)

    def _lose(self, failure: Exception) -> None:
        if not self._closed:
            self.close()
            self.lost.set_result(failure)
