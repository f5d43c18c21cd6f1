"""Redis clients, one for each way of waiting, and auto-pipelining of commands.

- `Commands`: short commands and scripts. All callers share one connection; while a pipeline is under way the next
  one gathers, so an idle system adds no wait and a busy one sends large pipelines. No command is ever repeated
  by the client: every retry is ours, because every write is idempotent and only we know its bound.
- `BlockingCommands`: blocking reads, one at a time; the timeout lies above the BLOCK time.

Where the server is (alone, behind Sentinels, in a Cluster) is `lifecycle.store.connect`'s matter.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from lifecycle.aio import tasks
from lifecycle.aio.watchdog import StallTimeout
from lifecycle.errors import StoreUnavailable
from lifecycle.redis_url import Kind, parse
from lifecycle.store.link import Link, Reply, connected
from lifecycle.store.sentinel import sentinel_client
from lifecycle.store.sockets import GUARDED, UnixConnection

log = logging.getLogger(__name__)

BLOCK_MS = 2000
BATCH_LIMIT = 512
BATCH_BYTES = 1 << 20  # in one pipeline, after which no further command is added
QUEUE_LIMIT = 100_000
_NO_TIMEOUT_SECS = 3600.0
_AWAY_WAIT_SECS = 0.1  # how long a call waits for the probe of a server that did not answer the last one
_PASSING = ("UNKILLABLE", "BUSY", "NOREPLICAS", "Script attempted to access a non local key")


def client_options(socket_timeout_secs: float) -> dict[str, Any]:
    """Of every client: it never retries by itself and never changes its connections behind our back."""
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


def make_client(url: str, *, socket_timeout_secs: float) -> Redis:
    """Of one server: the URL's, or the primary that Sentinels name. Raises ValueError for a URL nothing is made of."""
    address = parse(url)
    options = client_options(socket_timeout_secs)
    if address.kind is Kind.SENTINEL:
        return sentinel_client(address, options)
    if address.kind is Kind.CLUSTER:
        url = address.node_url(*address.nodes[0])
    given: dict[str, Any] = dict(parse_url(url))
    connection_class = GUARDED[given.pop("connection_class", Connection)]
    if connection_class is not UnixConnection:
        options["socket_keepalive"] = True
    return Redis.from_pool(ConnectionPool(connection_class, **(options | given)))


def blocking_client(url: str, timeout_secs: float) -> Redis:
    return make_client(url, socket_timeout_secs=BLOCK_MS / 1000 + timeout_secs)


def unavailable(failure: BaseException) -> StoreUnavailable | None:
    """The error as "Redis is away for now", or None when it is something else (a bug, a wrong type)."""
    if isinstance(failure, AuthenticationError):
        return StoreUnavailable(f"Redis refused the credentials: {failure}")
    if isinstance(failure, MovedError):
        return StoreUnavailable("This Redis is one node of a Cluster: give a URL redis+cluster://host:port,host:port")
    if isinstance(failure, (AskError, TryAgainError)):
        return StoreUnavailable("Redis Cluster is moving this part of the data, and refuses commands for now")
    if isinstance(failure, (BusyLoadingError, ClusterDownError, MasterDownError)):
        return StoreUnavailable(f"Redis refuses commands for now: {failure}")
    if isinstance(failure, (RedisConnectionError, RedisTimeoutError, MaxConnectionsError, OSError)):
        return StoreUnavailable(f"Redis cannot be reached: {failure}" if str(failure) else "Redis does not answer")
    if isinstance(failure, (ReadOnlyError, OutOfMemoryError)):
        return StoreUnavailable(f"Redis refuses writes: {failure}")
    if isinstance(failure, ResponseError) and str(failure).lstrip("-").startswith(_PASSING):
        return StoreUnavailable(f"Redis refuses commands for now: {failure}")
    return None


class Commands:
    """Auto-pipelining over one connection: `await execute("HGET", …)`.

    Raises StoreUnavailable when Redis is away, redis.ResponseError when it refuses the command itself. A failed
    connection fails everything that was under way or waiting; whether it was executed is then unknown.

    While the server is away nobody waits for it: the first call after a failure probes it, and whoever calls meanwhile
    is told within a tenth of a second. Nothing but the probe is sent before it has been answered.
    """

    def __init__(self, client: Redis, *, redirected: bool = False) -> None:
        """`redirected`: MovedError is the caller's to follow."""
        self._client = client
        options = client.connection_pool.connection_kwargs
        self._timeout_secs: float = options.get("socket_timeout") or _NO_TIMEOUT_SECS
        options["socket_timeout"] = None  # ours is kept instead: a late loop is not taken for a silent server
        self._redirected = redirected
        self._waiting: deque[tuple[bytes, Reply]] = deque()
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._scheduled = False  # a flush, for the end of this turn of the loop
        self._closed = False
        self._away: StoreUnavailable | None = None  # since the server did not answer, why
        self.left: set[Callable[[], None]] = set()  # called when the server is left, because it was demoted

    async def execute(self, *args: Any) -> Any:
        if self._closed or len(self._waiting) >= QUEUE_LIMIT:
            raise StoreUnavailable(
                "The Redis connection is closed" if self._closed else "Too many commands wait for Redis"
            )
        command = pack_command(args)
        reply: Reply = asyncio.get_running_loop().create_future()
        self._waiting.append((command, reply))
        self._schedule()
        value = await reply
        if isinstance(value, Exception):
            if isinstance(value, MovedError) and self._redirected:
                raise value
            if isinstance(value, ReadOnlyError):
                self._leave()
            raise unavailable(value) or value
        return value

    async def execute_many(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Replies in order; the first failure is raised after all have been answered."""
        replies = await asyncio.gather(*(self.execute(*c) for c in commands), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return list(replies)

    async def nodes(self) -> Sequence[Commands]:
        """Every server that holds a part of the data, for what no key leads to (SCAN, CONFIG, …)."""
        return (self,)

    async def aclose(self) -> None:
        self._closed = True
        if self._opening is not None:
            await tasks.end((self._opening,))
        self._drop(StoreUnavailable("The Redis connection is closed"))
        await self._client.aclose()

    def _schedule(self) -> None:
        """All that is asked in one turn of the loop is one pipeline."""
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
            return  # the next pipeline gathers
        commands: list[bytes] = []
        replies: list[Reply] = []
        size = 0
        while self._waiting and len(commands) < BATCH_LIMIT and size < BATCH_BYTES:
            command, reply = self._waiting.popleft()
            if not reply.done():
                commands.append(command)
                replies.append(reply)
                size += len(command)
        if commands:
            self._link.send(commands, replies)

    async def _open(self) -> None:
        """Connect, and see that the server answers: one that hangs still accepts connections."""
        known_away, clock = self._away is not None, asyncio.get_running_loop().time
        connecting = asyncio.create_task(self._connect(), name="redis-probe")
        try:
            while not connecting.done():
                asked_at = clock()
                await asyncio.wait((connecting,), timeout=_AWAY_WAIT_SECS)
                # When the loop itself is late, the answer may lie in the socket: that is not Redis's silence.
                if known_away and not connecting.done() and clock() - asked_at < 2 * _AWAY_WAIT_SECS:
                    self._fail_waiting(StoreUnavailable("Redis cannot be reached: it does not answer"))
        finally:
            await tasks.end((connecting,))
        if self._away is not None:
            self._fail_waiting(self._away)
        asyncio.get_running_loop().call_soon(self._flush)  # once this task is over: what waits may need another

    async def _connect(self) -> None:
        try:
            async with StallTimeout(self._timeout_secs):
                connection = await connected(self._client)
                link = Link(connection, self._timeout_secs, self._on_idle, self._on_lost)
                pong: Reply = asyncio.get_running_loop().create_future()
                try:
                    link.send([pack_command(("PING",))], [pong])
                    await pong  # an error is an answer too
                    if link.closed:  # by the server, in the turn in which it answered
                        raise RedisConnectionError("the connection was closed while it was opened")
                except BaseException:
                    link.close()
                    raise
        except StoreUnavailable as failure:
            self._away = failure
        except Exception as failure:  # whatever it is: every later call depends on this
            self._away = self._why_away(failure)
        else:
            self._away, self._link = None, link

    def _on_lost(self, failure: Exception, unanswered: Sequence[Reply]) -> None:
        """An idle connection that the server closes is no sign of its absence; one that owes an answer is."""
        self._link = None
        if unanswered:
            self._away = self._why_away(failure)
            _fail(unanswered, self._away)
            self._fail_waiting(self._away)

    @staticmethod
    def _why_away(failure: Exception) -> StoreUnavailable:
        away = unavailable(failure)
        if away is None:
            log.error("commands to Redis failed", exc_info=failure)
        return away or StoreUnavailable(f"Redis cannot be reached: {failure!r}")

    def _leave(self) -> None:
        """The server was demoted under the open connection; a new one may lead to the primary."""
        link, self._link = self._link, None
        if link is not None:
            _fail(link.close(), StoreUnavailable("Redis refuses writes: the server has become a replica"))
            self._schedule()
            for call in list(self.left):
                call()

    def _drop(self, failure: StoreUnavailable) -> None:
        """Close the connection; who waits is told so."""
        link, self._link = self._link, None
        if link is not None:
            _fail(link.close(), failure)
        self._fail_waiting(failure)

    def _fail_waiting(self, failure: StoreUnavailable) -> None:
        _fail((reply for _, reply in self._waiting), failure)
        self._waiting.clear()


class BlockingCommands(Commands):
    """Blocking reads, by one caller at a time. One that is cancelled takes its connection along: what Redis would
    hand to it later would be nobody's.
    """

    async def execute(self, *args: Any) -> Any:
        try:
            return await super().execute(*args)
        except asyncio.CancelledError:
            self._drop(StoreUnavailable("The blocking read was cancelled"))
            raise

    def _schedule(self) -> None:
        """Nothing else comes that could share a pipeline."""
        self._flush()


def _fail(replies: Iterable[Reply], failure: StoreUnavailable) -> None:
    for reply in replies:
        if not reply.done():
            reply.set_exception(failure)
