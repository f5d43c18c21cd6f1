"""Redis clients and automatic pipelining of commands.

- `Commands` is for short commands and scripts. All callers share one connection. While a pipeline is under way the next
  one gathers, so an idle system adds no delay and a busy one sends large pipelines. It never repeats a command: the
  callers do, because they know which writes are idempotent and how long a repetition is useful.
- `BlockingCommands` is for blocking reads, one at a time. Its timeout is above the BLOCK time.

`lifecycle.store.connect` chooses the server: a single one, the primary behind Sentinels, or a node of a Redis Cluster.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, AuthenticationError, MovedError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.maint_notifications import MaintNotificationsConfig

from lifecycle.aio import tasks
from lifecycle.aio.watchdog import StallTimeout
from lifecycle.errors import StoreUnavailable
from lifecycle.redis_url import Kind, parse
from lifecycle.store.arguments import pack
from lifecycle.store.command_keys import key_of
from lifecycle.store.link import Link, Receiver, Reply, connected
from lifecycle.store.merged_calls import Call, merge
from lifecycle.store.password_file import NO_PASSWORD_FILES, PasswordFiles, use_password_file
from lifecycle.store.redis_errors import unavailable
from lifecycle.store.sentinel import sentinel_client
from lifecycle.store.sockets import GUARDED, UnixConnection

log = logging.getLogger(__name__)

BLOCK_MS = 2000
BATCH_LIMIT = 512
BATCH_BYTES = 1 << 20  # of one pipeline, above which no further command is added
QUEUE_LIMIT = 100_000  # commands that wait for Redis
_TOGETHER = 2 * BATCH_LIMIT  # of one `execute_many`: others' commands come between those of a large question
_NO_TIMEOUT_SECS = 3600.0
_AWAY_WAIT_SECS = 0.1  # how long a call waits for the probe of a server that is known to be away


def client_options(socket_timeout_secs: float) -> dict[str, Any]:
    """Return redis-py's options for every client: no retries of its own, and no change of connections by itself."""
    return {
        "decode_responses": False,
        "socket_timeout": socket_timeout_secs,
        "socket_connect_timeout": min(socket_timeout_secs, 5.0),
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "max_connections": 8,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "protocol": 2,
    }


def make_client(url: str, *, socket_timeout_secs: float, passwords: PasswordFiles = NO_PASSWORD_FILES) -> Redis:
    """Return a client of the URL's server, of the primary that Sentinels name, or of a Redis Cluster's first node.

    It reads the passwords from their files, if there are any, at each connect. Raises ValueError when the URL is
    malformed or does not go with the files. Nothing is connected yet.
    """
    redis_url = parse(url)
    if passwords.sentinels and redis_url.kind is not Kind.SENTINEL:
        raise ValueError(
            "it names no Sentinels, and LIFECYCLE_REDIS_SENTINEL_PASSWORD_FILE is for them: leave that out"
        )
    options = client_options(socket_timeout_secs)
    if redis_url.kind is Kind.SENTINEL:
        return sentinel_client(redis_url, options, passwords)
    if redis_url.kind is Kind.CLUSTER:
        url = redis_url.node_url(*redis_url.nodes[0])
    given: dict[str, Any] = dict(parse_url(url))
    use_password_file(given, passwords.redis)
    connection_class = GUARDED[given.pop("connection_class", Connection)]
    if connection_class is not UnixConnection:
        options["socket_keepalive"] = True
    return Redis.from_pool(ConnectionPool(connection_class, **(options | given)))


class Commands:
    """Commands over one automatically pipelined connection: `await execute("HGET", …)`.

    A connection that fails also fails every command that was sent or was waiting; a command that was sent may have been
    executed. While the server is away, calls fail within a tenth of a second: the first call after a failure probes the
    server with a PING, and nothing else is sent before it is answered.
    """

    def __init__(self, client: Redis, *, redirected: bool = False) -> None:
        """With `redirected`, MovedError, AskError and TryAgainError are raised to the caller, which handles them.

        Without a key there is nothing to redirect, so they are refusals like any other then.
        """
        self._client = client
        options = client.connection_pool.connection_kwargs
        self._timeout_secs: float = options.get("socket_timeout") or _NO_TIMEOUT_SECS
        options["socket_timeout"] = None  # Link measures it: a late event loop must not count as a silent server
        self._redirected = redirected
        self._waiting: deque[Call] = deque()
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # found once: Python 3.11 makes a system call each time
        self._scheduled = False  # a flush at the end of this turn of the loop
        self._closed = False
        self._away: StoreUnavailable | None = None  # the reason, since the server did not answer
        self.on_demotion: set[Callable[[], None]] = set()  # called when the server has become a replica

    async def execute(self, *args: Any) -> Any:
        """Execute one command and return its reply.

        Raises StoreUnavailable when Redis gives no usable answer, and redis.exceptions.ResponseError when its error
        tells something about the data (see `redis_errors`).
        """
        if self._closed:
            raise StoreUnavailable("The Redis connection is closed")
        if len(self._waiting) >= QUEUE_LIMIT:
            raise StoreUnavailable(f"{QUEUE_LIMIT:,} commands wait for Redis, which is the limit: try again later")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        reply: Reply = self._loop.create_future()
        self._waiting.append(Call.of(args, reply))
        self._schedule()
        value = await reply
        if isinstance(value, Exception):
            redirects = self._redirected and isinstance(value, (MovedError, AskError, TryAgainError))
            if redirects and key_of(args) is not None:
                raise value
            if isinstance(value, ReadOnlyError):
                self._leave()
            elif isinstance(value, AuthenticationError):  # a new connection has the credentials of now
                self._drop(StoreUnavailable("Redis refused the credentials of this connection"))
            raise unavailable(value, args[0]) or value
        return value

    async def execute_many(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Execute commands and return the replies in order.

        At most 1,024 of them wait at a time. After an error the rest is not sent, and the first error is raised once
        those that were sent are answered.
        """
        replies: list[Any] = []
        remaining = iter(commands)
        while some := list(itertools.islice(remaining, _TOGETHER)):
            answered = await asyncio.gather(*(self.execute(*c) for c in some), return_exceptions=True)
            for reply in answered:
                if isinstance(reply, BaseException):
                    raise reply
            replies += answered
        return replies

    async def node_of(self, key: str) -> Commands:
        """Return the client of the server that holds this Redis key. Raises StoreUnavailable when it is not known."""
        return self

    async def nodes(self) -> Sequence[Commands]:
        """Return one client for each server that holds a part of the data, for commands without a Redis key.

        Raises StoreUnavailable when a Redis Cluster's nodes are not known.
        """
        return (self,)

    async def aclose(self) -> None:
        """Close the connection; every outstanding command raises StoreUnavailable."""
        self._closed = True
        if self._opening is not None:
            await tasks.end((self._opening,))
        self._drop(StoreUnavailable("The Redis connection is closed"))
        await self._client.aclose()

    def _schedule(self) -> None:
        """Send the commands of this turn of the loop as one pipeline at its end."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _on_idle(self) -> None:
        if self._waiting:
            self._schedule()

    def _flush(self) -> None:
        self._scheduled = False
        if not self._waiting:
            return
        if self._link is None:
            if not self._closed and (self._opening is None or self._opening.done()):
                self._opening = asyncio.create_task(self._open(), name="redis-connect")
            return
        if self._link.busy:
            return  # the next pipeline gathers until the replies have come
        calls: list[Call] = []
        size = 0
        while self._waiting and len(calls) < BATCH_LIMIT and size < BATCH_BYTES:
            call = self._waiting.popleft()
            if not call.reply.done():
                calls.append(call)
                size += len(call.command)
        if calls:
            self._send(self._link, merge(calls))

    def _send(self, link: Link, calls: Sequence[Call]) -> None:
        """Send one pipeline."""
        link.send([call.command for call in calls], [call.reply for call in calls])

    async def _open(self) -> None:
        """Connect and check that the server answers, because one that hangs still accepts connections."""
        known_away, clock = self._away is not None, asyncio.get_running_loop().time
        connecting = asyncio.create_task(self._connect(), name="redis-probe")
        try:
            while not connecting.done():
                asked_at = clock()
                await asyncio.wait((connecting,), timeout=_AWAY_WAIT_SECS)
                # When the loop itself is late, the answer may be in the socket already.
                if known_away and not connecting.done() and clock() - asked_at < 2 * _AWAY_WAIT_SECS:
                    self._fail_waiting(StoreUnavailable("Redis does not answer"))
        finally:
            await tasks.end((connecting,))
        if self._away is not None:
            self._fail_waiting(self._away)
        asyncio.get_running_loop().call_soon(
            self._flush
        )  # after this task, as a command that waits may need to connect again

    async def _connect(self) -> None:
        try:
            async with StallTimeout(self._timeout_secs):
                connection = await connected(self._client)
                link = Link(connection, self._timeout_secs, self._on_idle, self._on_lost)
                pong: Reply = asyncio.get_running_loop().create_future()
                try:
                    link.send([pack(("PING",))], [pong])
                    await pong  # an error reply is an answer too
                    if link.closed:  # closed by the server in the turn in which it answered
                        raise RedisConnectionError("The connection was closed while it was opened")
                except BaseException:
                    link.close()
                    raise
        except StoreUnavailable as failure:
            self._away = failure
        except Exception as failure:  # of any kind: later calls must not wait for ever
            self._away = self._why_away(failure)
        else:
            self._away, self._link = None, link

    def _on_lost(self, failure: Exception, unanswered: Sequence[Receiver]) -> None:
        """Mark the server as away, unless the connection was idle: servers close idle connections at times."""
        self._link = None
        if unanswered:
            self._away = self._why_away(failure)
            _fail(unanswered, self._away)
            self._fail_waiting(self._away)

    @staticmethod
    def _why_away(failure: Exception) -> StoreUnavailable:
        away = unavailable(failure)
        if away is None:
            log.error("The Redis connection failed with an unexpected error", exc_info=failure)
        return away or StoreUnavailable("Redis cannot be reached", repr(failure))

    def _leave(self) -> None:
        """Close the connection to a server that was demoted; a new one may lead to the primary."""
        link, self._link = self._link, None
        if link is not None:
            _fail(link.close(), StoreUnavailable("Redis refuses writes: the server has become a replica"))
            self._schedule()
            for call in list(self.on_demotion):
                call()

    def _drop(self, failure: StoreUnavailable) -> None:
        """Close the connection and fail every outstanding command."""
        link, self._link = self._link, None
        if link is not None:
            _fail(link.close(), failure)
        self._fail_waiting(failure)

    def _fail_waiting(self, failure: StoreUnavailable) -> None:
        _fail((call.reply for call in self._waiting), failure)
        self._waiting.clear()


class BlockingCommands(Commands):
    """Blocking reads, for one caller at a time.

    A read that is cancelled closes the connection, or Redis would later deliver entries to it that are not handled.
    """

    async def execute(self, *args: Any) -> Any:
        """Execute one blocking read and return its reply. Raises as `Commands.execute` does."""
        try:
            return await super().execute(*args)
        except asyncio.CancelledError:
            self._drop(StoreUnavailable("The blocking read was cancelled"))
            raise

    def _schedule(self) -> None:
        """Send at once, as there is one caller and so no second command for the pipeline."""
        self._flush()


def _fail(replies: Iterable[Receiver], failure: StoreUnavailable) -> None:
    for reply in replies:
        if not reply.done():
            reply.set_exception(failure)
