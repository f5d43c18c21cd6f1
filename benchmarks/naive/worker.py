"""The naive build's worker: one task for each request, one XADD for each token."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import orjson
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from benchmarks.engines import stamped
from benchmarks.naive.wire import CANCEL, GROUP, JOBS, RETENTION_SECS, connect, tokens_of

_BLOCK_MS = 5_000
_TAKEN_AT_ONCE = 64


@dataclass(slots=True)
class Context:
    """The part of a request's context that an engine can use."""

    id: str


class Worker:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            await self._redis.xgroup_create(JOBS, GROUP, id="0", mkstream=True)
        except ResponseError:
            pass  # another worker made it
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            await self._take(group)

    async def _take(self, group: asyncio.TaskGroup) -> None:
        name = uuid4().hex
        while True:
            found: Any = await self._redis.xreadgroup(GROUP, name, {JOBS: ">"}, count=_TAKEN_AT_ONCE, block=_BLOCK_MS)
            for entry, fields in found[0][1] if found else ():
                rid = fields[b"id"].decode()
                task = group.create_task(self._attempt(rid, orjson.loads(fields[b"body"]), entry))
                self._running[rid] = task

    async def _attempt(self, rid: str, body: dict[str, Any], entry: bytes) -> None:
        key, ending = tokens_of(rid), "completed"
        engine = stamped(body, Context(rid))
        try:
            async for text in engine:
                await self._redis.xadd(key, {"text": cast(str, text)})
        except asyncio.CancelledError:
            ending = "cancelled"
        except Exception as failure:
            ending = str(failure)
        finally:
            await engine.aclose()
            del self._running[rid]
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xadd(key, {"end": ending})
            pipeline.expire(key, RETENTION_SECS)
            pipeline.xack(JOBS, GROUP, entry)
            await pipeline.execute()

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(CANCEL)
            async for message in pubsub.listen():
                if message["type"] == "message" and (task := self._running.get(message["data"].decode())):
                    task.cancel()


if __name__ == "__main__":
    uvloop.run(Worker(connect(sys.argv[1])).run())
