"""Read the events of the Responses API, as an engine yields them or a translation makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from lifecycle.errors import EngineError
from lifecycle.formats import chunk_events, response_object
from lifecycle.formats.origin import Origin
from lifecycle.formats.produced import Produced
from lifecycle.formats.response_object import ENDINGS, OPENINGS, new_response
from lifecycle.formats.responses_usage import to_chat_usage
from lifecycle.ids import is_request_id
from lifecycle.types import Event

_OWN = ("id", "object", "created_at", "model", "background", "store", "previous_response_id", "metadata")
"""The fields of the response object that are the request's own, whatever the engine says."""

_ASKED = ("instructions", "safety_identifier", "prompt_cache_key", "user")
"""The fields that are as the client gave them; where it gave none, the engine's stay."""

_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
_STATUSES = {"rate_limit_exceeded": 429, "vector_store_timeout": 504}
_INVALID = ("invalid_", "image_", "unsupported_", "empty_image", "failed_to_download_image")  # begin the code


class ResponsesFormat:
    """Read the events of one attempt. What is written carries the request's own id, and has no `sequence_number`."""

    takes_text = False
    is_one_event = False

    def __init__(self, origin: Origin) -> None:
        self._response = new_response(origin.request_id, origin.created_at, origin.body, "in_progress")
        self._own = {name: self._response[name] for name in _OWN}
        self._own |= {name: origin.body[name] for name in _ASKED if origin.body.get(name) is not None}
        self._opened = {event["type"] for event in origin.emitted if self.is_opening(event) and isinstance(event, dict)}

    def read(self, event: object) -> Produced:
        """Return what to write for an event; nothing for one that opens the answer and is in the stream already.

        Raises EngineError for an event that says that the answer has failed, and TypeError for no event of this format.
        """
        fields, encoded = chunk_events.encode(event)
        kind = fields.get("type")
        if not isinstance(kind, str) or not kind or not kind.isprintable():
            raise TypeError("the engine yielded a dict without a valid type; yield the events of the Responses API")
        if kind in ("error", "response.failed"):
            raise _failure(fields)
        response = fields.get("response")
        if "sequence_number" in fields or isinstance(response, dict):
            fields = {name: value for name, value in fields.items() if name != "sequence_number"}
            if isinstance(response, dict):
                fields["response"] = self._response | response | self._own
            encoded = orjson.dumps(fields)
        if kind in OPENINGS:
            is_known = kind in self._opened
            self._opened.add(kind)
            return Produced(b"" if is_known else encoded, is_opening=True)
        reason, usage = _outcome(kind, response if isinstance(response, dict) else {})
        return Produced(encoded, _has_content(kind, fields), False, reason, usage, _item_ids(kind, fields, response))

    def is_opening(self, event: Event) -> bool:
        """Return whether the event says only that an answer begins."""
        return response_object.is_opening(event)


def status_of_code(code: object) -> int | None:
    """Return the HTTP status that an error code of the Responses API stands for; None for one that is unknown."""
    if not isinstance(code, str):
        return None
    return _STATUSES.get(code) or (400 if code.startswith(_INVALID) else None)


def _item_ids(kind: str, event: Mapping[str, Any], response: object) -> tuple[str, ...]:
    """Return the ids of the item that begins with this event, or of those in a whole response, which can be keys."""
    items: object = None
    if kind == "response.output_item.added":
        items = [event.get("item")]
    elif kind in ENDINGS and isinstance(response, dict):
        items = response.get("output")
    ids = [item.get("id") for item in (items if isinstance(items, list) else ()) if isinstance(item, dict)]
    return tuple(found for found in ids if isinstance(found, str) and is_request_id(found))


def _has_content(kind: str, event: Mapping[str, Any]) -> bool:
    """Return whether the event carries a part of the answer. That an item begins is a part of it if it is a call."""
    if kind == "response.output_item.added":
        item = event.get("item")
        return isinstance(item, dict) and item.get("type") not in ("message", "reasoning")
    return kind.endswith(".delta") and bool(event.get("delta"))


def _outcome(kind: str, response: Mapping[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
    """Return the finish reason and the usage of the event that ends the answer, in chat's terms."""
    if kind not in ("response.completed", "response.incomplete"):
        return None, None
    usage = response.get("usage")
    chat_usage = to_chat_usage(usage) if isinstance(usage, dict) else None
    if kind == "response.incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return _FINISH_REASONS.get(str(reason), str(reason or "stop")), chat_usage
    output = response.get("output")
    items = output if isinstance(output, list) else []
    calls = any(isinstance(item, dict) and item.get("type") == "function_call" for item in items)
    return "tool_calls" if calls else "stop", chat_usage


def _failure(event: Mapping[str, Any]) -> EngineError:
    """Return the error of an event that says that the answer has failed: `error`, or `response.failed`."""
    response = event.get("response")
    holder = response if isinstance(response, dict) else event
    error = holder.get("error")
    fields = error if isinstance(error, dict) else event
    code, message, param = fields.get("code"), fields.get("message", error), fields.get("param")
    kind = fields.get("type") if fields is not event else None
    return EngineError(
        message if isinstance(message, str) and message else "The engine failed without a message",
        status_of_code(code) or 500,
        type=kind if isinstance(kind, str) else None,
        code=code if isinstance(code, str | int) and not isinstance(code, bool) else None,
        param=param if isinstance(param, str) else None,
    )
