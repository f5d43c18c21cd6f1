"""An OpenAI server of the least code: FastAPI and uvicorn answer a stream, with the engine in the same process.

There is no Redis, no worker, no id, no cancel and no count. What a request costs here is what the HTTP side of every
system costs that is built on FastAPI and uvicorn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from benchmarks.engines import stamped
from benchmarks.plain_http import DONE, event, serve
from lifecycle.execution.context import EngineContext


def create_app() -> FastAPI:
    """Return the application, which serves streamed chat completions."""
    app = FastAPI()

    async def events(body: dict[str, Any]) -> AsyncIterator[bytes]:
        envelope = {
            "id": "chatcmpl-0",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body["model"],
        }
        async for text in stamped(body, EngineContext("chatcmpl-0", 1)):
            yield event(envelope, {"content": text}, None)
        yield event(envelope, {}, "stop") + DONE

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(body: dict[str, Any]) -> Response:
        return StreamingResponse(events(body), media_type="text/event-stream")

    return app


if __name__ == "__main__":
    serve(create_app(), int(sys.argv[1]))
