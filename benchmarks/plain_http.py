"""Write the events of the naive build and of the bare server in one form, and serve both under the same settings."""

from __future__ import annotations

from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI

DONE = b"data: [DONE]\n\n"


def event(envelope: dict[str, Any], delta: dict[str, Any], finish_reason: str | None) -> bytes:
    """Return a chunk of a chat completion as an event. `envelope` is what all chunks of an answer have in common."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + orjson.dumps({**envelope, "choices": [choice]}) + b"\n\n"


def serve(app: FastAPI, port: int) -> None:
    """Serve an application on loopback until the process is told to end."""
    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
