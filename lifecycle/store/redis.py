"""Redis clients, one for each way of waiting, and auto-pipelining of commands.

- `Commands`: short commands and scripts. All callers share one connection; while a pipeline is under way the next
  one gathers, so an idle system adds no wait and a busy one sends large pipelines. No command is ever repeated
  by the client: every retry is ours, because every write is idempotent and only we know its bound.
- `blocking_client`: for blocking reads; its socket timeout lies above the BLOCK time.

Where the server is (alone, behind Sentinels, in a Cluster) is `lifecycle.store.connect`'s matter.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

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

from lifecycle import tasks
from lifecycle.address import Kind, parse
from lifecycle.errors import StoreUnavailable
from lifecycle.patience import Patience
from lifecycle.store.sentinel import sentinel_client
from lifecycle.store.sockets import GUARDED, UnixConnection

log = logging.getLogger(__name__)

BLOCK_MS = 2000
BATCH_LIMIT = 512
QUEUE_LIMIT = 100_000
_NO_TIMEOUT_SECS = 3600.0
_AWAY_WAIT_SECS = 0.1  # how long a call waits for the probe of a server that did not answer the last one
_PASSING = ("UNKILLABLE", "BUSY", "NOREPLICAS", "Script attempted to access a non local key")


def client_options(socket_timeout_secs: float, max_connections: int = 8) -> dict[str, Any]:
    """Of every client: it never retries by itself and never changes its connections behind our back."""
    return {
        "decode_responses": False,
        "socket_timeout": socket_timeout_secs,
        "socket_connect_timeout": min(socket_timeout_secs, 5.0),
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "max_connections": max_connections,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "protocol": 2,
    }


def make_client(url: str, *, socket_timeout_secs: float, max_connections: int = 8) -> Redis:
    """Of one server: the URL's, or the primary that Sentinels name. Raises ValueError for a URL nothing is made of."""
    address = parse(url)
    options = client_options(socket_timeout_secs, max_connections)
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
    return make_client(url, socket_timeout_secs=BLOCK_MS / 1000 + timeout_secs, max_connections=2048)


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


Batch = Sequence[tuple[tuple[Any, ...], asyncio.Future[Any]]]


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
        self._timeout_secs = options.get("socket_timeout") or _NO_TIMEOUT_SECS
        options["socket_timeout"] = None  # ours is kept instead: a late loop is not taken for a silent server
        self._redirected = redirected
        self._waiting: deque[tuple[tuple[Any, ...], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._away: StoreUnavailable | None = None  # since the server did not answer, why

    async def execute(self, *args: Any) -> Any:
        if self._closed or len(self._waiting) >= QUEUE_LIMIT:
            raise StoreUnavailable(
                "The Redis connection is closed" if self._closed else "Too many commands wait for Redis"
            )
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="redis-commands")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((args, reply))
        self._wake.set()
        return await reply

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
        if self._task is not None:
            await tasks.end((self._task,))
        self._fail_waiting(StoreUnavailable("The Redis connection is closed"))
        await self._client.aclose()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self._away is not None and not await self._probe():
                continue
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LIMIT))]
            if not self._waiting:
                self._wake.clear()
            batch = [(args, reply) for args, reply in batch if not reply.done()]
            if batch:
                try:
                    await self._send(batch)
                except asyncio.CancelledError:
                    self._fail(batch, StoreUnavailable("The Redis connection is closed"))
                    raise

    async def _probe(self) -> bool:
        """Whether the server answers again. Whoever calls meanwhile is told that it does not, and soon."""
        pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        probe = asyncio.create_task(self._send([(("PING",), pong)]), name="redis-probe")
        try:
            clock = asyncio.get_running_loop().time
            while not probe.done():
                asked_at = clock()
                await asyncio.wait((probe,), timeout=_AWAY_WAIT_SECS)
                # When the loop itself is late, the answer may lie in the socket: that is not Redis's silence.
                if not probe.done() and clock() - asked_at < 2 * _AWAY_WAIT_SECS:
                    self._fail_waiting(StoreUnavailable("Redis cannot be reached: it does not answer"))
        finally:
            await tasks.end((probe,))
        if pong.done():
            pong.exception()  # an error is an answer too
        if self._away is not None:
            self._fail_waiting(self._away)
        return self._away is None

    async def _send(self, batch: Batch) -> None:
        try:
            replies = await self._exchange([args for args, _ in batch])
        except Exception as failure:  # whatever it is: the task that sends every command must not die of it
            away = unavailable(failure)
            if away is None:
                log.exception("commands to Redis failed")
            self._away = away or StoreUnavailable(f"Redis cannot be reached: {failure!r}")
            self._fail(batch, self._away)
            return
        self._away = None
        for (_, reply), value in zip(batch, replies, strict=True):
            if reply.done():
                continue
            if isinstance(value, MovedError) and self._redirected:
                reply.set_exception(value)
            elif isinstance(value, Exception):
                reply.set_exception(unavailable(value) or value)
            else:
                reply.set_result(value)

    async def _exchange(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """One pipeline. Each reply has the whole patience; an error reply is a reply."""
        pool: Any = self._client.connection_pool
        replies: list[Any] = []
        async with Patience(self._timeout_secs) as patience:
            connection = await pool.get_connection()
            try:
                await connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as failure:
                        replies.append(failure)
                    patience.renew()
            except BaseException:
                await connection.disconnect(nowait=True)  # what it has not read yet must not answer others
                raise
            finally:
                await pool.release(connection)
        return replies

    def _fail_waiting(self, failure: Exception) -> None:
        self._fail(self._waiting, failure)
        self._waiting.clear()
        self._wake.clear()

    @staticmethod
    def _fail(batch: Iterable[tuple[tuple[Any, ...], asyncio.Future[Any]]], failure: Exception) -> None:
        for _, reply in batch:
            if not reply.done():
                reply.set_exception(failure)
