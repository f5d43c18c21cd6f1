"""Turn stored events of the Responses API back into the events of chat that they were translated from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lifecycle.types import Event

_DELTAS = {"response.reasoning_text.delta": "reasoning_content", "response.refusal.delta": "refusal"}


def to_chat_events(events: Iterable[Event]) -> list[Event]:
    """Return what an engine had yielded for these events: texts, and chunks of chat for everything else."""
    chat: list[Event] = []
    calls: dict[int, int] = {}  # by output_index: the number of a function call among the calls
    for event in events:
        if isinstance(event, dict):
            chat += _translated(event, calls)
    return chat


def _translated(event: Mapping[str, Any], calls: dict[int, int]) -> Iterable[Event]:
    kind = event["type"]
    if kind == "response.output_text.delta":
        if not event.get("logprobs"):
            return [event["delta"]]
        return [_chunk({"content": event["delta"]}, logprobs={"content": event["logprobs"]})]
    if kind in _DELTAS:
        return [_chunk({_DELTAS[kind]: event["delta"]})]
    if kind == "response.output_item.added" and event["item"]["type"] == "function_call":
        item, number = event["item"], len(calls)
        calls[event["output_index"]] = number
        function = {"name": item["name"], "arguments": ""}
        return [_chunk({"tool_calls": [_call(number, function, id=item["call_id"], type="function")]})]
    if kind == "response.function_call_arguments.delta":
        call = _call(calls[event["output_index"]], {"arguments": event["delta"]})
        return [_chunk({"tool_calls": [call]})]
    return []


def _call(number: int, function: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"index": number, **fields, "function": function}


def _chunk(delta: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, **fields}]}
