"""A frontend and workers in the test's own process, a reader that collects, and the loss of Redis's last writes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import redis

from lifecycle.aio import tasks
from lifecycle.execution.context import EngineContext
from lifecycle.execution.worker import Worker
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import Endpoint, Labels, Limits, OnDisconnect, RequestType
from tests.waiting import wait_until

MODEL = "m"
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
_STOP_SECS = 8.0
Engine = Callable[[dict[str, Any], EngineContext], AsyncIterator[str]]


def quick_settings(url: str, **overrides: Any) -> Settings:
    """Return settings with leases short enough to wait for."""
    quick = {"lease_secs": 1.0, "heartbeat_secs": 0.25, "sweep_secs": 0.25, "concurrency": 4, "log_level": "error"}
    return Settings(**{"redis_url": url, **quick, **overrides})


@asynccontextmanager
async def frontend(settings: Settings) -> AsyncIterator[Tracker]:
    """Run a frontend without its HTTP side. A failure of the block leaves it as it is, not inside a group."""
    failure: Exception | None = None
    async with Tracker.open(settings, Metrics(), "http://frontend.test") as tracker:
        try:
            yield tracker
        except Exception as raised:
            failure = raised
    if failure is not None:
        raise failure


@asynccontextmanager
async def worker(settings: Settings, engine: Engine, model: str = MODEL) -> AsyncIterator[Worker]:
    """Run a worker of this engine, and drain it afterwards."""
    async with Connections.open(settings) as connections:
        running = Worker(settings, connections, model, engine)
        task = asyncio.create_task(running.run())
        try:
            yield running
        finally:
            running.drain()
            await asyncio.wait((task,), timeout=_STOP_SECS)
            await tasks.end((task,))
            del running, task
    # Exceptions that nobody has retrieved are logged now. Logged while pytest parses a source file for its report, they
    # make CPython 3.11 fail with "AST constructor recursion depth mismatch".
    gc.collect()


async def served(tracker: Tracker, model: str = MODEL) -> None:
    """Wait until the frontend knows a living worker of this model."""

    async def is_live() -> bool:
        return await tracker.model_state(model) == "live"

    await wait_until(is_live, what=f"a living worker of {model}")


def call(rid: str, *, on_disconnect: OnDisconnect = OnDisconnect.CONTINUE) -> AdmissionRequest:
    """Return what a frontend asks for when a client calls MODEL."""
    labels = Labels(MODEL, Endpoint.CHAT_COMPLETIONS, RequestType.STREAM)
    return AdmissionRequest(rid, labels, BODY, on_disconnect, 0.0, Limits())


class Reading:
    """The events that one reader has brought so far."""

    def __init__(self, reader: TokenReader) -> None:
        self.texts: list[str] = []
        self.end: End | None = None
        self._reader = reader

    @property
    def text(self) -> str:
        return "".join(self.texts)

    async def run(self) -> None:
        """Read until the stream ends."""
        while self.end is None:
            item = await self._reader.next()
            if isinstance(item, Tokens):
                self.texts += map(str, item.events)
            elif isinstance(item, End):
                self.end = item

    async def got(self, count: int) -> None:
        """Wait until so many tokens have come."""
        await wait_until(lambda: len(self.texts) >= count, what=f"{count} tokens")

    async def ended(self, timeout_secs: float = 10.0) -> End:
        """Wait for the stream's end."""
        await wait_until(lambda: self.end is not None, timeout_secs, "the end of the stream")
        assert self.end is not None
        return self.end


@asynccontextmanager
async def reading(reader: TokenReader) -> AsyncIterator[Reading]:
    """Read in the background for as long as the block lasts."""
    collected = Reading(reader)
    task = asyncio.create_task(collected.run())
    try:
        yield collected
    finally:
        await tasks.end((task,))


@contextmanager
def _client(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(server.url, protocol=2)
    try:
        yield client
    finally:
        client.close()


def dump_shard(server: EmbeddedRedis, prefix: str) -> dict[bytes, bytes]:
    """Return every key of a shard as a replica would have it that misses all later writes."""
    with _client(server) as client:
        dumped: dict[Any, Any] = {key: client.dump(key) for key in client.keys(f"{prefix}*")}
        return dumped


def restore_shard(server: EmbeddedRedis, prefix: str, dumped: dict[bytes, bytes]) -> None:
    """Lose what was written to a shard since the dump, in one transaction, as a failover to a late replica does."""
    with _client(server) as client, client.pipeline(transaction=True) as pipeline:
        for key in client.keys(f"{prefix}*"):
            pipeline.delete(key)
        for key, value in dumped.items():
            pipeline.restore(key, 0, value)
        pipeline.execute()
