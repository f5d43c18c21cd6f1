"""The naive build's HTTP side: one blocked XREAD for each request."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import orjson
from fastapi import FastAPI, Header, Response
from fastapi.responses import StreamingResponse
from redis.asyncio import Redis

from benchmarks.naive.wire import CANCEL, INFLIGHT, JOBS, RETENTION_SECS, connect, tokens_of
from benchmarks.plain_http import DONE, event, serve

_BLOCK_MS = 5_000


def create_app(redis: Redis) -> FastAPI:
    app = FastAPI()
    leaving: set[asyncio.Task[None]] = set()

    async def admit(rid: str, body: dict[str, Any]) -> None:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.incr(INFLIGHT)
            pipeline.xadd(JOBS, {"id": rid, "body": orjson.dumps(body)}, maxlen=100_000)
            await pipeline.execute()

    async def batches(rid: str) -> AsyncIterator[tuple[list[str], str]]:
        """Tokens as they come, and how it ended, with the last of them."""
        key, last = tokens_of(rid), "0"
        while True:
            found: Any = await redis.xread({key: last}, block=_BLOCK_MS)
            if not found:
                continue
            entries = found[0][1]
            last = entries[-1][0]
            texts = [fields[b"text"].decode() for _, fields in entries if b"text" in fields]
            ending = entries[-1][1].get(b"end", b"").decode()
            yield texts, ending
            if ending:
                return

    async def leave(rid: str, finished: bool) -> None:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.decr(INFLIGHT)
            pipeline.expire(tokens_of(rid), RETENTION_SECS)
            if not finished:
                pipeline.publish(CANCEL, rid)
            await pipeline.execute()

    def left(rid: str, finished: bool) -> None:
        """Run in a task of its own, because the response's task is cancelled when its client has gone."""
        task = asyncio.create_task(leave(rid, finished))
        leaving.add(task)
        task.add_done_callback(leaving.discard)

    async def events(rid: str, model: str) -> AsyncIterator[bytes]:
        envelope = {"id": rid, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        finished = False
        try:
            async for texts, ending in batches(rid):
                pieces = [event(envelope, {"content": text}, None) for text in texts]
                finished = bool(ending)
                if ending == "completed":
                    pieces += event(envelope, {}, "stop"), DONE
                elif ending:
                    pieces += b'data: {"error":{"message":"%s"}}\n\n' % ending.encode(), DONE
                yield b"".join(pieces)
        finally:
            left(rid, finished)

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(body: dict[str, Any], x_request_id: str | None = Header(None)) -> Response:
        rid = x_request_id or f"chatcmpl-{uuid4().hex}"
        await admit(rid, body)
        if body.get("stream"):
            return StreamingResponse(
                events(rid, body["model"]), media_type="text/event-stream", headers={"x-request-id": rid}
            )
        text = ending = ""
        try:
            async for texts, state in batches(rid):
                text += "".join(texts)
                ending = state
        finally:
            left(rid, bool(ending))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        answer = {"id": rid, "object": "chat.completion", "model": body["model"], "choices": [choice]}
        status = 200 if ending == "completed" else 500
        return Response(orjson.dumps(answer), status, {"x-request-id": rid}, "application/json")

    @app.post("/v1/requests/{rid}/cancel", response_model=None)
    async def cancel(rid: str) -> Response:
        await redis.publish(CANCEL, rid)
        return Response(orjson.dumps({"id": rid}), 202, media_type="application/json")

    @app.get("/v1/inflight")
    async def inflight() -> dict[str, int]:
        return {"total": int(await redis.get(INFLIGHT) or 0)}

    return app


if __name__ == "__main__":
    url, port = sys.argv[1:]
    serve(create_app(connect(url)), int(port))
