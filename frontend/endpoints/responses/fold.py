"""Fold the events of a response into the response object, as it is at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from lifecycle.formats.response_object import ENDINGS, OPENINGS, new_response
from lifecycle.formats.responses_usage import to_responses_usage
from lifecycle.tokens.items import End
from lifecycle.types import Event

# What each kind of text belongs to: the item itself, a part of its content, or a part of its summary; and its field.
_TEXTS = {
    "response.output_text": ("content", "text"),
    "response.refusal": ("content", "refusal"),
    "response.reasoning_text": ("content", "text"),
    "response.reasoning_summary_text": ("summary", "text"),
    "response.function_call_arguments": ("", "arguments"),
    "response.mcp_call_arguments": ("", "arguments"),
    "response.custom_tool_call_input": ("", "input"),
    "response.code_interpreter_call_code": ("", "code"),
}
_NEW_PARTS: dict[str, dict[str, Any]] = {
    "response.output_text": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "response.refusal": {"type": "refusal", "refusal": ""},
    "response.reasoning_text": {"type": "reasoning_text", "text": ""},
    "response.reasoning_summary_text": {"type": "summary_text", "text": ""},
}
_PARTS = {"response.content_part": "content", "response.reasoning_summary_part": "summary"}
_INDEXES = {"content": "content_index", "summary": "summary_index"}
_LONGEST_LIST = 100_000  # the parts of one item that are kept
_LEFT_STATUSES = {
    "completed": "completed",
    "incomplete": "incomplete",
    "failed": "incomplete",
    "cancelled": "incomplete",
}
"""The status of the items that were in progress when a response ended with this status."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseFold:
    """Fold events in order. Events that say nothing about the response object change nothing.

    The events may be shared with other readers, so they are never changed.
    """

    def __init__(self, base: Mapping[str, Any] | None = None) -> None:
        """`base` is the response object before there is any event; without it only its defaults are known."""
        self._response = dict(base) if base else new_response("", 0, {}, "in_progress")
        self._created_at = self._response["created_at"]  # an opening that is written at admission does not have it
        self._items: dict[int, dict[str, Any]] = {}  # by output_index
        self._texts: dict[tuple[int, str], tuple[dict[str, Any], list[str]]] = {}  # that grow, by their holder
        self._growing: tuple[Any, ...] = ()  # identifies the text that the last event added to
        self._pieces: list[str] = []  # of that text
        self.ending = ""  # the type of the event that has ended the response

    def add(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        for event in events:
            if isinstance(event, dict):
                self._add(event)

    def _add(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if not isinstance(kind, str) or self.ending:
            return
        if self._growing and self._continue(event):
            return
        self._growing = ()
        stem, _, what = kind.rpartition(".")
        if what == "delta":
            self._append(stem, event)
        elif kind in OPENINGS or kind in ENDINGS:
            self._take_response(kind, event.get("response"))
        elif stem == "response.output_item":
            item, index = event.get("item"), event.get("output_index")
            if isinstance(item, dict) and type(index) is int:
                self._items[index] = deepcopy(item)
        elif stem in _PARTS:
            self._set_part(_PARTS[stem], event)
        elif stem in _TEXTS and what == "done":
            self._complete(stem, event)
        elif kind == "response.output_text.annotation.added":
            self._annotate(event)

    def _continue(self, event: Mapping[str, Any]) -> bool:
        """Take an event that adds to the same text as the last one, as most do: this is the hot path."""
        delta = event.get("delta")
        if type(delta) is not str or event.get("logprobs") or _text_of(event) != self._growing:
            return False
        self._pieces.append(delta)
        return True

    def _take_response(self, kind: str, response: Any) -> None:
        """Take the whole response object of an event. The output of one that ends the response replaces the items."""
        if isinstance(response, dict):
            self._response = response | {"created_at": self._created_at or response.get("created_at")}
        if kind not in ENDINGS:
            return
        self.ending = kind
        output = response.get("output") if isinstance(response, dict) else None
        if isinstance(output, list) and output:
            self._items = dict(enumerate(output))
            self._texts.clear()

    def _append(self, stem: str, event: Mapping[str, Any]) -> None:
        delta, holder = event.get("delta"), self._holder(stem, event)
        if holder is None or not isinstance(delta, str):
            return
        field = _TEXTS[stem][1]
        self._growing = _text_of(event)
        self._pieces = self._texts.setdefault((id(holder), field), (holder, []))[1]
        self._pieces.append(delta)
        logprobs = event.get("logprobs")
        if isinstance(logprobs, list) and logprobs:
            _extend(holder, "logprobs", logprobs)

    def _complete(self, stem: str, event: Mapping[str, Any]) -> None:
        holder, field = self._holder(stem, event), _TEXTS[stem][1]
        text = event.get(field)
        if holder is None or not isinstance(text, str):
            return
        self._texts.pop((id(holder), field), None)
        holder[field] = text
        if event.get("logprobs"):
            holder["logprobs"] = event["logprobs"]

    def _holder(self, stem: str, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what the text of an event belongs to; its part is made if it has not been announced."""
        item = self._item(event)
        if item is None or stem not in _TEXTS:
            return None
        place = _TEXTS[stem][0]
        return self._part(item, place, event, _NEW_PARTS[stem]) if place else item

    def _item(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        index = event.get("output_index")
        return self._items.get(index) if type(index) is int else None

    def _part(
        self, item: dict[str, Any], place: str, event: Mapping[str, Any], new: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """Return the part of an item that an event is about; None when there is no such part and it is not the next."""
        index, parts = event.get(_INDEXES[place]), item.get(place)
        if not isinstance(parts, list):
            parts = item[place] = []
        if type(index) is not int or not 0 <= index <= len(parts) or index >= _LONGEST_LIST:
            return None
        if index == len(parts):
            if new is None:
                return None
            parts.append(deepcopy(dict(new)))
        part = parts[index]
        return part if isinstance(part, dict) else None

    def _set_part(self, place: str, event: Mapping[str, Any]) -> None:
        item, part = self._item(event), event.get("part")
        if item is None or not isinstance(part, dict) or self._part(item, place, event, part) is None:
            return
        item[place][event[_INDEXES[place]]] = deepcopy(part)

    def _annotate(self, event: Mapping[str, Any]) -> None:
        item, annotation = self._item(event), event.get("annotation")
        part = self._part(item, "content", event, None) if item is not None else None
        if part is not None and annotation is not None:
            _extend(part, "annotations", [annotation])

    def response(self, status: str, **fields: Any) -> dict[str, Any]:
        """Return the response object with this status, and with these fields instead of its own.

        Its items are as far as they have come; when the response has ended, none is in progress any more.
        """
        self._flush()
        left = _LEFT_STATUSES.get(status)
        output = [_settled(self._items[index], left) for index in sorted(self._items)]
        return {**self._response, "status": status, "output": output, **fields}

    def completed(self, end: End) -> dict[str, Any]:
        """Return the response object of a request that has completed with this end."""
        if self.ending:
            return self.response(self.ending.removeprefix("response."))
        usage, reason = to_responses_usage(end.usage), _INCOMPLETE.get(end.finish_reason)
        if reason is None:
            return self.response("completed", usage=usage)
        return self.response("incomplete", usage=usage, incomplete_details={"reason": reason})

    def body(self, request_id: str, model: str, created: int, end: End) -> dict[str, Any]:
        """Return the response object of a completed request, as the answer of a call without `stream`."""
        return self.completed(end) | {"id": request_id, "model": model, "created_at": created}

    def _flush(self) -> None:
        """Put the texts together. They are kept in pieces, because adding each piece to a long text takes too long."""
        self._growing = ()
        for (_, field), (holder, pieces) in self._texts.items():
            before = holder.get(field)
            holder[field] = "".join((before if isinstance(before, str) else "", *pieces))
        self._texts.clear()


def _text_of(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what identifies the text that an event adds to."""
    return event["type"], event.get("output_index"), event.get("content_index"), event.get("summary_index")


def _extend(holder: dict[str, Any], field: str, values: list[Any]) -> None:
    if not isinstance(holder.get(field), list):
        holder[field] = []
    holder[field].extend(values)


def _settled(item: Any, status: str | None) -> Any:
    """Return the item with this status if it was in progress."""
    if status is None or not isinstance(item, dict) or item.get("status") != "in_progress":
        return item
    return {**item, "status": status}
