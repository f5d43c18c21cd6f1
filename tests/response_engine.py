"""An engine that serves the Responses API itself: `tests.response_engine:generate`.

It answers with the words of the input, or with a call of the first tool if there are tools. The call's `metadata` says
what else it does:

- `starts`: the path of a file; it waits until the file exists before it has any output
- `gate`: the path of a file; it waits behind the first half of the answer until the file exists
- `fails`: the code of the error with which it fails behind the first half
- `refuses`: the code of the error with which it fails before it has any output
- `ends`: the reason with which it ends as incomplete
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lifecycle.execution.context import EngineContext

_POLL_SECS = 0.01
USAGE = {
    "input_tokens": 4,
    "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 7,
}
ARGUMENTS = ('{"city"', ":", '"Paris"', "}")

Events = AsyncIterator[dict[str, Any]]


def response(status: str, **fields: Any) -> dict[str, Any]:
    """Return a response object as an upstream fills it in for itself."""
    own = {"id": "resp_upstream", "object": "response", "created_at": 1, "model": "upstream", "output": []}
    return own | {"status": status, "background": False, "store": False} | fields


def last_text(request: dict[str, Any]) -> str:
    """Return the text of the last item of the input."""
    given = request["input"]
    content = given if isinstance(given, str) else given[-1]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


async def generate(request: dict[str, Any], context: EngineContext) -> Events:
    """Yield the events of one response."""
    told = request.get("metadata") or {}
    yield {"type": "response.created", "sequence_number": 0, "response": response("in_progress")}
    yield {"type": "response.in_progress", "sequence_number": 1, "response": response("in_progress")}
    await _opened(told.get("starts"))
    if told.get("refuses"):
        yield _failure(told["refuses"])
    produced = _call(request["tools"][0], told) if request.get("tools") else _message(last_text(request), told)
    item: dict[str, Any] = {}
    async for event in produced:
        yield event
        if context.is_stopped:
            return
        if event["type"] == "response.output_item.done":
            item = event["item"]
    if told.get("ends"):
        ended = response("incomplete", output=[item], usage=USAGE, incomplete_details={"reason": told["ends"]})
        yield {"type": "response.incomplete", "response": ended}
    else:
        yield {"type": "response.completed", "response": response("completed", output=[item], usage=USAGE)}


def _failure(code: str) -> dict[str, Any]:
    return {"type": "response.failed", "response": response("failed", error={"code": code, "message": "No"})}


async def _half(told: dict[str, str]) -> Events:
    """Wait or fail, as the call says."""
    if told.get("fails"):
        yield _failure(told["fails"])
    await _opened(told.get("gate"))


async def _opened(gate: str | None) -> None:
    """Wait until the file exists, if there is one to wait for."""
    while gate and not Path(gate).exists():
        await asyncio.sleep(_POLL_SECS)


async def _message(text: str, told: dict[str, str]) -> Events:
    at: dict[str, Any] = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    item: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}
    item["content"] = []
    part = {"type": "output_text", "text": "", "annotations": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.content_part.added", **at, "part": part}
    words = text.split()
    for number, word in enumerate(words):
        if number == len(words) // 2:
            async for event in _half(told):
                yield event
        yield {"type": "response.output_text.delta", **at, "delta": (" " if number else "") + word, "logprobs": []}
    whole = " ".join(words)
    yield {"type": "response.output_text.done", **at, "text": whole, "logprobs": []}
    part = part | {"text": whole}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": item | {"status": "completed", "content": [part]},
    }


async def _call(tool: dict[str, Any], told: dict[str, str]) -> Events:
    at: dict[str, Any] = {"output_index": 0, "item_id": "fc_1"}
    item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": tool["name"], "status": "in_progress"}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item | {"arguments": ""}}
    for number, piece in enumerate(ARGUMENTS):
        if number == len(ARGUMENTS) // 2:
            async for event in _half(told):
                yield event
        yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
    arguments = "".join(ARGUMENTS)
    assert json.loads(arguments)
    yield {"type": "response.function_call_arguments.done", **at, "name": tool["name"], "arguments": arguments}
    done = item | {"status": "completed", "arguments": arguments}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}


generate.endpoints = ("responses",)  # type: ignore[attr-defined]
generate.accepts = True  # type: ignore[attr-defined]
