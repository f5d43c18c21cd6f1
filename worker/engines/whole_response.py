"""Write the events that the stream of a response would have had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lifecycle.types import Event

_TEXTS = {"output_text": "text", "reasoning_text": "text", "refusal": "refusal"}


def events_of(response: dict[str, Any]) -> list[Event]:
    """Return the events of a response that has ended, each piece of text whole.

    Raise AttributeError, KeyError or TypeError for what is no response object.
    """
    opened = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[Event] = [{"type": kind, "response": opened} for kind in ("response.created", "response.in_progress")]
    for index, item in enumerate(response["output"]):
        events += _item(index, item)
    kind = "response.incomplete" if response.get("status") == "incomplete" else "response.completed"
    return [*events, {"type": kind, "response": response}]


def _item(index: int, item: dict[str, Any]) -> Iterator[Event]:
    kind = item["type"]
    begun = {**item, "status": "in_progress"}
    if kind in ("message", "reasoning"):
        begun["content"] = []
    elif kind == "function_call":
        begun["arguments"] = ""
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    place = {"item_id": item.get("id") or "", "output_index": index}
    if kind == "function_call":
        yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]}
    elif kind in ("message", "reasoning"):
        for number, part in enumerate(item.get("content") or []):
            yield from _part({**place, "content_index": number}, part)
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _part(place: Mapping[str, Any], part: dict[str, Any]) -> Iterator[Event]:
    kind = part["type"]
    field = _TEXTS.get(kind)
    if field is None:
        yield {"type": "response.content_part.added", **place, "part": part}
    else:
        logprobs = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
        begun = {**part, field: "", **({"logprobs": []} if logprobs else {})}
        yield {"type": "response.content_part.added", **place, "part": begun}
        yield {"type": f"response.{kind}.delta", **place, "delta": part[field], **logprobs}
        yield {"type": f"response.{kind}.done", **place, field: part[field], **logprobs}
    yield {"type": "response.content_part.done", **place, "part": part}
