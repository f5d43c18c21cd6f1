"""Connections to Redis that bypass redis-py once they are open.

redis-py opens a connection (host and port, TLS, credentials, database, Sentinels). Its transport is then taken over, so
there is no stream, task or timer between a command and its socket: a pipeline costs one write, and its replies one
read.

- `Link` sends commands and matches the replies, which come in the same order.
- `PushLink` is the connection of a subscription: it passes on whatever Redis sends.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from lifecycle.aio.watchdog import Watchdog

Reply = asyncio.Future[Any]


class Receiver(Protocol):
    """Gets the reply to a command: a future, or several of them."""

    def done(self) -> bool: ...

    def set_result(self, value: Any, /) -> None: ...

    def set_exception(self, failure: BaseException, /) -> None: ...


_INCOMPLETE = object()  # the parser has no complete reply yet


async def connected(client: Redis) -> Any:
    """Open one of redis-py's connections and return it with no reply outstanding. Raises RedisError and OSError."""
    pool: Any = client.connection_pool
    connection = pool.make_connection()
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


class _Wire(asyncio.Protocol):
    """A transport and a parser. `_lose` is called once when the connection is lost, unless its owner has closed it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transport = cast(asyncio.WriteTransport, connection._writer.transport)
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=_INCOMPLETE
        )
        self._closed = False
        self._transport.set_protocol(self)

    @abstractmethod
    def _lose(self, failure: Exception) -> None: ...

    def _write(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except RuntimeError as failure:  # raised by uvloop when the connection was reset
            self._lose(RedisConnectionError(f"The connection was closed: {failure}"))

    def _shut(self) -> None:
        self._closed = True
        self._connection._close()  # also marks redis-py's connection as closed

    # Called by asyncio

    def eof_received(self) -> None:
        self._lose(RedisConnectionError("Redis closed the connection"))

    def connection_lost(self, failure: Exception | None) -> None:
        self._lose(RedisConnectionError(str(failure) if failure else "The connection was closed"))


class Link(_Wire):
    """A connection for commands. An error reply of Redis is the result of its future, as an exception object.

    `on_idle` is called when every reply has come. `on_lost` is called with the reason when the connection is lost, and
    with the replies that will not come; their commands may have been executed.
    """

    def __init__(
        self,
        connection: Any,
        timeout_secs: float,
        on_idle: Callable[[], None],
        on_lost: Callable[[Exception, Sequence[Receiver]], None],
    ) -> None:
        """`connection` is from `connected()`, and `timeout_secs` is how long each reply may take."""
        super().__init__(connection)
        self._awaited: deque[Receiver] = deque()
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._watchdog = Watchdog(timeout_secs, self._on_silent)

    @property
    def closed(self) -> bool:
        """Return whether its owner has closed it or it was lost."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Return whether a reply is outstanding."""
        return bool(self._awaited)

    def send(self, commands: Sequence[bytes], replies: Sequence[Receiver]) -> None:
        """Send packed commands as one pipeline. A future that was cancelled meanwhile gets no result."""
        self._awaited.extend(replies)
        self._watchdog.begin()
        self._write(commands[0] if len(commands) == 1 else b"".join(commands))

    def close(self) -> Sequence[Receiver]:
        """Close the connection and return the futures of the replies that will not come."""
        self._watchdog.close()
        unanswered, self._awaited = self._awaited, deque()
        self._shut()
        return unanswered

    def data_received(self, data: bytes) -> None:
        parser, awaited = self._parser, self._awaited
        try:
            parser.feed(data)
            while (value := parser.gets()) is not _INCOMPLETE:
                reply = awaited.popleft()
                if not reply.done():
                    reply.set_result(value)
        except IndexError:
            self._lose(InvalidResponse("Redis sent a reply without a command"))
            return
        except Exception as failure:  # the data is not the Redis protocol
            self._lose(failure)
            return
        if awaited:
            self._watchdog.renew()
        else:
            self._watchdog.rest()
            self._on_idle()

    def _on_silent(self) -> None:
        self._lose(RedisTimeoutError())  # `unavailable` gives it a message

    def _lose(self, failure: Exception) -> None:
        if not self._closed:
            self._on_lost(failure, self.close())


class PushLink(_Wire):
    """A connection of a subscription. `lost` resolves to the reason when the connection is lost."""

    def __init__(self, connection: Any, on_push: Callable[[list[Any]], None]) -> None:
        """`connection` is from `connected()`; `on_push` is called with all replies that came in one read."""
        super().__init__(connection)
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._on_push = on_push

    def send(self, *args: str) -> None:
        """Send one command. Its reply is passed to `on_push`."""
        self._write(hiredis.pack_command(cast(Any, args)))

    def close(self) -> None:
        """Close the connection; `lost` then never resolves."""
        self._shut()

    def drop(self, why: Exception) -> None:
        """Close the connection as if it were lost for this reason."""
        self._lose(why)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            values: list[Any] = []
            while (value := self._parser.gets()) is not _INCOMPLETE:
                values.append(value)
            if values:
                self._on_push(values)
        except Exception as failure:  # the data is not the Redis protocol
            self._lose(failure)

    def _lose(self, failure: Exception) -> None:
        if not self._closed:
            self.close()
            self.lost.set_result(failure)
