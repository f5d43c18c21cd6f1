"""Stream an agent's events from any number of replicas, tracked together.

    uvicorn agent:app --port 9000 & uvicorn agent:app --port 9001

A request is seen, cancelled and resumed at either replica: `/v1/requests/{id}`, with `/cancel` and `/stream`.
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Response

import lifecycle
from lifecycle.fastapi import Tracked

app = FastAPI(lifespan=lifecycle.fastapi.lifespan)
app.include_router(lifecycle.fastapi.router())


async def think(question: str, context: lifecycle.EngineContext) -> AsyncIterator[dict[str, object]]:
    """Yield one event for each word, until the client has enough."""
    for step, word in enumerate(question.split(), 1):
        if context.is_stopped:
            return
        await asyncio.sleep(0.1)
        yield {"step": step, "thought": word}


@app.post("/agent")
async def agent(question: str, tracked: Tracked) -> Response:
    """Answer a question. If its client goes away, the answer waits a while for it to come back."""
    return await tracked.stream(lambda context: think(question, context), model="my-agent")
