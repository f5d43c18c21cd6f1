"""An engine of chat completions that thinks, calls functions, and resumes: `tests.chat_engine:generate`.

If the call has tools and no result of one yet, the answer is two calls of the first tool, whose pieces come in turns.
Otherwise it is a thought and then the words of the last message, as many as `max_tokens` allows. The field `gate`, a
vendor's own, is the path of a file: the engine waits behind its third event until the file exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.types import Event

_POLL_SECS = 0.01
THOUGHTS = ("Let me ", "think.")
USAGE = {
    "prompt_tokens": 4,
    "completion_tokens": 6,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


async def generate(request: dict[str, Any], context: EngineContext) -> AsyncIterator[Event]:
    """Yield the events behind those that earlier attempts have left."""
    context.usage = USAGE
    events = list(_events(request, context))
    for number, event in enumerate(events):
        if number < len(context.emitted):
            assert event == context.emitted[number], (event, context.emitted[number])
            continue
        gate = request.get("gate")
        while gate and number >= 3 and not Path(gate).exists() and not context.is_stopped:
            await asyncio.sleep(_POLL_SECS)
        if context.is_stopped:
            return
        yield event


generate.endpoints = ("chat_completions",)  # type: ignore[attr-defined]
generate.accepts = ("tools",)  # type: ignore[attr-defined]
generate.resumable = True  # type: ignore[attr-defined]


def _events(request: dict[str, Any], context: EngineContext) -> Iterator[Event]:
    messages = request["messages"]
    if request.get("tools") and messages[-1]["role"] != "tool":
        yield from _calls(request["tools"][0]["function"]["name"])
        context.finish_reason = "tool_calls"
        return
    for thought in THOUGHTS:
        yield _chunk(reasoning_content=thought)
    words = str(messages[-1]["content"]).split(" ")
    limit = request.get("max_tokens") or len(words)
    for number, word in enumerate(words[:limit]):
        yield f" {word}" if number else word
    context.finish_reason = "length" if limit < len(words) else "stop"


def _calls(name: str) -> Iterator[Event]:
    for index in range(2):
        call = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield _chunk(tool_calls=[call])
    for piece in ('{"city":', '"Paris"}'):
        for index in range(2):
            yield _chunk(tool_calls=[{"index": index, "function": {"arguments": piece}}])


def _chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}
