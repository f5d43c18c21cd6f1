"""Give a scripted answer as Anthropic's Messages API does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.clients.scripted import INPUT_TOKENS, OUTPUT_TOKENS, Answer, answer_of, pieces

_numbers = count()  # of the messages: each has an id of its own
_FAILURE = {"type": "error", "error": {"type": "overloaded_error", "message": "the engine has run out of memory"}}


def answer(body: dict[str, Any]) -> Answer:
    """Return the answer to a call."""
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return answer_of(body["model"], any(block["type"] == "tool_result" for blocks in contents for block in blocks))


def whole(body: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a completed answer."""
    said = answer(body)
    content = [block for block, _ in _blocks(said)]
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    return _message(body) | {"content": content, "stop_reason": _stop_reason(said), "usage": usage}


def events(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of an answer."""
    return list(_events(body, answer(body)))


def failure(before: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the event that ends an answer that fails behind these events."""
    return _FAILURE


def encode(event: dict[str, Any]) -> str:
    """Return the server-sent event."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


def _message(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1},
    }


def _stop_reason(said: Answer) -> str:
    return "tool_use" if said.calls else "end_turn"


def _events(body: dict[str, Any], said: Answer) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": _message(body)}
    yield {"type": "ping"}
    for index, (block, deltas) in enumerate(_blocks(said)):
        empty = {name: value if name in ("type", "id", "name") else type(value)() for name, value in block.items()}
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": _stop_reason(said), "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": OUTPUT_TOKENS}}
    yield {"type": "message_stop"}


def _blocks(said: Answer) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each block of the content, and its deltas."""
    if said.reasoning:
        deltas: list[dict[str, Any]] = [
            {"type": "thinking_delta", "thinking": piece} for piece in pieces(said.reasoning)
        ]
        deltas.append({"type": "signature_delta", "signature": "c2lnbmVk"})
        yield {"type": "thinking", "thinking": said.reasoning, "signature": "c2lnbmVk"}, deltas
    if said.text:
        yield (
            {"type": "text", "text": said.text},
            [{"type": "text_delta", "text": piece} for piece in pieces(said.text)],
        )
    for index, (name, arguments) in enumerate(said.calls):
        yield (
            {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": arguments},
            [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(json.dumps(arguments))],
        )
