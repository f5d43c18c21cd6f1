"""Stream a scripted answer as chat completions do."""

from __future__ import annotations

import json
from typing import Any

from tests.clients.scripted import INPUT_TOKENS, OUTPUT_TOKENS, Answer, answer_of, pieces

_FAILURE = {"error": {"message": "the engine has run out of memory", "type": "server_error", "code": "oom"}}


def answer(body: dict[str, Any]) -> Answer:
    """Return the answer to a call."""
    return answer_of(body["model"], any(message["role"] == "tool" for message in body["messages"]))


def events(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of an answer, the last of which has the usage."""
    said = answer(body)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += ({"reasoning_content": piece} for piece in pieces(said.reasoning))
    deltas += ({"content": piece} for piece in pieces(said.text))
    for index, (name, arguments) in enumerate(said.calls):
        call = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [call]})
        for piece in pieces(json.dumps(arguments)):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    chunks = [_chunk(body, delta) for delta in deltas]
    chunks.append(_chunk(body, {}, "tool_calls" if said.calls else "stop"))
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    return [*chunks, {**chunks[0], "choices": [], "usage": usage}]


def failure(before: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the event that ends an answer that fails behind these events."""
    return _FAILURE


def encode(event: dict[str, Any]) -> str:
    """Return the server-sent event."""
    return f"data: {json.dumps(event)}\n\n"


def _chunk(body: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    envelope = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    return envelope | {"choices": choices}
