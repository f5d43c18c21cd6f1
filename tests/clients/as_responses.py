"""Give a scripted answer as the Responses API does, with every event that OpenAI's own servers send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.clients.scripted import INPUT_TOKENS, OUTPUT_TOKENS, Answer, answer_of, pieces

_numbers = count()  # of the responses: each has an id of its own
ERROR = {"code": "server_error", "message": "the engine has run out of memory"}
_DEFAULTS: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def answer(body: dict[str, Any]) -> Answer:
    """Return the answer to a call."""
    items = body["input"] if isinstance(body["input"], list) else []
    return answer_of(body["model"], any(item.get("type") == "function_call_output" for item in items))


def lost_item(body: dict[str, Any]) -> str | None:
    """Return the id of an item that a call refers to and that is not there, because nothing is to be stored."""
    items = body["input"] if isinstance(body["input"], list) and body.get("store") is False else []
    return next((str(item["id"]) for item in items if item.get("type") == "item_reference"), None)


def whole(body: dict[str, Any]) -> dict[str, Any]:
    """Return the response object of a completed answer."""
    response: dict[str, Any] = events(body)[-1]["response"]
    return response


def events(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of an answer, numbered."""
    found = _events(body | {"id": f"resp_{next(_numbers)}"}, answer(body))
    return [event | {"sequence_number": number} for number, event in enumerate(found)]


def failure(before: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the event that ends an answer that fails behind these events."""
    response = before[0]["response"] | {"status": "failed", "error": ERROR}
    return {"type": "response.failed", "response": response, "sequence_number": len(before)}


def encode(event: dict[str, Any]) -> str:
    """Return the server-sent event."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


def _response(body: dict[str, Any], status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    asked = {name: body[name] for name in _DEFAULTS if body.get(name) is not None}
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    return {
        "id": body["id"],
        "object": "response",
        "created_at": 1,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": body["model"],
        "output": output,
        "usage": usage if status == "completed" else None,
        **_DEFAULTS,
        **asked,
    }


def _events(body: dict[str, Any], said: Answer) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response(body, "in_progress", [])}
    yield {"type": "response.in_progress", "response": _response(body, "in_progress", [])}
    output: list[dict[str, Any]] = []
    empty: dict[str, Any]
    for item, middle in _items(said):
        place = {"output_index": len(output)}
        empty = {name: [] if isinstance(value, list) else value for name, value in item.items()}
        if item["type"] == "function_call":
            empty["arguments"] = ""
        if "status" in item:
            empty["status"] = "in_progress"
        yield {"type": "response.output_item.added", **place, "item": empty}
        for event in middle:
            yield {**event, **place, "item_id": item["id"]}
        yield {"type": "response.output_item.done", **place, "item": item}
        output.append(item)
    yield {"type": "response.completed", "response": _response(body, "completed", output)}


def _items(said: Answer) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each item of the output, and the events between its two."""
    part: dict[str, Any]
    if said.reasoning:
        part = {"type": "summary_text", "text": said.reasoning}
        yield (
            {"id": "rs_0", "type": "reasoning", "summary": [part]},
            _texts("reasoning_summary_text", "reasoning_summary_part", {"summary_index": 0}, part),
        )
    if said.text:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        yield (
            {"id": "msg_0", "type": "message", "status": "completed", "role": "assistant", "content": [part]},
            _texts("output_text", "content_part", {"content_index": 0}, part, {"logprobs": []}),
        )
    for index, (name, given) in enumerate(said.calls):
        arguments = json.dumps(given)
        kind = "response.function_call_arguments"
        yield (
            {
                "id": f"fc_{index}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{index}",
                "name": name,
                "arguments": arguments,
            },
            [
                *({"type": f"{kind}.delta", "delta": piece} for piece in pieces(arguments)),
                {"type": f"{kind}.done", "arguments": arguments, "name": name},
            ],
        )


def _texts(
    kind: str, part_kind: str, place: dict[str, int], part: dict[str, Any], more: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the events of one part of an item that has a text."""
    more = more or {}
    return [
        {"type": f"response.{part_kind}.added", **place, "part": part | {"text": ""}},
        *({"type": f"response.{kind}.delta", **place, "delta": piece, **more} for piece in pieces(part["text"])),
        {"type": f"response.{kind}.done", **place, "text": part["text"], **more},
        {"type": f"response.{part_kind}.done", **place, "part": part},
    ]
