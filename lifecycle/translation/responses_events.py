"""Write the events of the Responses API for the pieces of an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from lifecycle.formats.responses_usage import to_responses_usage
from lifecycle.translation.responses_answer import Item, ResponsesAnswer

_ITEMS: dict[str, dict[str, Any]] = {
    "output_text": {"type": "message", "role": "assistant"},
    "refusal": {"type": "message", "role": "assistant"},
    "reasoning_text": {"type": "reasoning", "summary": []},
}
_PARTS: dict[str, dict[str, Any]] = {
    "output_text": {"type": "output_text", "annotations": [], "logprobs": [], "text": ""},
    "refusal": {"type": "refusal", "refusal": ""},
    "reasoning_text": {"type": "reasoning_text", "text": ""},
}
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesEvents:
    """Write the events of one answer, and fold them into it.

    An answer has at most one open message or reasoning, which any other piece ends. Its function calls stay open to the
    end, because servers may send the pieces of several in turns.
    """

    def __init__(self, response: dict[str, Any], answer: ResponsesAnswer) -> None:
        """Continue `answer`, which may have come from another attempt.

        `response` is the response object while it is in progress. Its id makes those of the items, so that each attempt
        gives an item the same one.
        """
        self._response = response
        self._answer = answer

    def openings(self) -> Iterator[dict[str, Any]]:
        """Yield the events that open the answer, without those that it has."""
        for kind in ("response.created", "response.in_progress"):
            if kind not in self._answer.openings:
                yield self._written({"type": kind, "response": self._response})

    def text(self, kind: str, delta: str, logprobs: list[dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the events for a piece of text. `kind` is one of TEXT_FIELDS."""
        item = self._answer.open_text
        if item is not None and item.data["type"] != _ITEMS[kind]["type"]:
            yield from self._close(item, "completed")
            item = None
        if item is None:
            yield from self._add(dict(_ITEMS[kind], content=[]))
            item = self._answer.items[-1]
        if item.part is not None and (item.part["type"] != kind or item.text_done):
            yield from self._close_part(item)
        if item.part is None:
            part = {"type": "response.content_part.added", **_place(item), "part": dict(_PARTS[kind])}
            yield self._written(part)
        event = {"type": f"response.{kind}.delta", **_place(item), "delta": delta}
        yield self._written(event | ({"logprobs": logprobs or []} if kind == "output_text" else {}))

    def call(self, name: str, call_id: str) -> Iterator[dict[str, Any]]:
        """Yield the events that begin the call of a function. Without a `call_id` it gets one."""
        item = self._answer.open_text
        if item is not None:
            yield from self._close(item, "completed")
        fields = {"call_id": call_id or self._id("call", len(self._answer.items)), "name": name, "arguments": ""}
        yield from self._add({"type": "function_call", **fields})

    def arguments(self, item: Item, delta: str) -> Iterator[dict[str, Any]]:
        """Yield the event for a piece of the arguments of a function call."""
        if not item.text_done:
            yield self._written({"type": "response.function_call_arguments.delta", **_place(item), "delta": delta})

    def ending(self, finish_reason: str, usage: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
        """Yield the events that complete the answer. Finish reason and usage are in chat's terms.

        Without a reported count, the output is as many tokens long as it came in pieces.
        """
        if self._answer.is_complete:
            return
        reason = _INCOMPLETE.get(finish_reason)
        status = "completed" if reason is None else "incomplete"
        for item in self._answer.items:
            if not item.done:
                yield from self._close(item, status)
        details = None if reason is None else {"reason": reason}
        counted = to_responses_usage({"completion_tokens": self._answer.pieces, **(usage or {})})
        ended = {"status": status, "incomplete_details": details, "usage": counted}
        response = {**self._response, **ended, "output": self._answer.output()}
        yield self._written({"type": f"response.{status}", "response": response})

    def _add(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the event that announces an item."""
        index = len(self._answer.items)
        kind = item["type"]
        item = {"type": kind, "id": self._id(_PREFIXES[kind], index), "status": "in_progress", **item}
        yield self._written({"type": "response.output_item.added", "output_index": index, "item": item})

    def _close(self, item: Item, status: str) -> Iterator[dict[str, Any]]:
        """Yield the events that complete an item, without those that it has."""
        if item.data["type"] != "function_call":
            yield from self._close_part(item)
        elif not item.text_done:
            yield self._written(
                {"type": "response.function_call_arguments.done", **_place(item), "arguments": item.text}
            )
        done = {"output_index": item.index, "item": item.finished(status)}
        yield self._written({"type": "response.output_item.done", **done})

    def _close_part(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yield the events that complete the open part of an item, if there is one."""
        if item.part is None:
            return
        part, kind = item.finished_part(), item.part["type"]
        if not item.text_done:
            fields = {name: value for name, value in part.items() if name not in ("type", "annotations")}
            yield self._written({"type": f"response.{kind}.done", **_place(item), **fields})
        yield self._written({"type": "response.content_part.done", **_place(item), "part": part})

    def _written(self, event: dict[str, Any]) -> dict[str, Any]:
        self._answer.apply(event)
        return event

    def _id(self, prefix: str, index: int) -> str:
        digest = hashlib.blake2s(f"{self._response['id']}/{index}".encode(), digest_size=16).hexdigest()
        return f"{prefix}_{digest}"


def _place(item: Item) -> dict[str, Any]:
    """Return the fields of an event that say which item, and which part of it, it belongs to."""
    place = {"item_id": item.id, "output_index": item.index}
    return place if item.data["type"] == "function_call" else {**place, "content_index": len(item.content)}
