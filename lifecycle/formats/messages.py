"""Read the events of Anthropic's Messages API, as engines that serve it, or translations, yield them."""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.errors import EngineError
from lifecycle.formats import chunk_events, message_object, messages_usage
from lifecycle.formats.message_object import OPENINGS, finish_reason_of
from lifecycle.formats.origin import Origin
from lifecycle.formats.produced import Produced
from lifecycle.types import Event

ERROR_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
}
"""The HTTP statuses of the types of errors that are not a failure of the server's own."""

_DELTA_TEXTS = ("text", "thinking", "partial_json", "signature", "citation")
_START_TEXTS = ("text", "thinking")
_NO_MESSAGE = "the engine reported an error without a message"


class MessagesFormat:
    """Read events, each a dict with its `type`. The message gets the request's id and its model.

    A later attempt does not repeat `message_start`, nor the pings before the content.
    """

    takes_text = False
    is_one_event = False

    def __init__(self, origin: Origin) -> None:
        self._request_id = origin.request_id
        self._model = origin.body.get("model")
        before = [event["type"] for event in origin.emitted if isinstance(event, dict) and "type" in event]
        self._has_start = "message_start" in before
        self._pings = before.count("ping")  # of earlier attempts, to be left out once
        self._is_begun = False  # an event that is no opening has come
        self._usage: dict[str, Any] = {}

    def read(self, event: object) -> Produced:
        """Return what to write for an event. Raises TypeError for what is none, and EngineError for an error event."""
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise TypeError(
                f"the engine yielded a value of type {type(event).__name__}; "
                "yield the events of the Messages API, each a dict with its type"
            )
        fields, encoded = chunk_events.encode(event)
        kind = fields.get("type")
        if kind in OPENINGS:
            return self._opening(fields, encoded)
        self._is_begun = True
        if kind == "content_block_start":
            return Produced(encoded, _starts_content(fields.get("content_block")))
        if kind == "content_block_delta":
            return Produced(encoded, _has_any(fields.get("delta"), _DELTA_TEXTS))
        if kind == "message_delta":
            return self._message_delta(fields, encoded)
        if kind == "error":
            raise error_of(fields)
        return Produced(encoded, has_content=kind not in ("content_block_stop", "message_stop"))

    def is_opening(self, event: Event) -> bool:
        """Return whether the event says only that an answer begins, so that the answer has none of its content yet."""
        return message_object.is_opening(event)

    def _opening(self, fields: dict[str, Any], encoded: bytes) -> Produced:
        if fields["type"] == "ping":
            left_out = self._pings > 0 and not self._is_begun
            self._pings -= left_out
            return Produced(b"" if left_out else encoded, is_opening=not self._is_begun)
        message = fields.get("message")
        shown = {**message, "id": self._request_id, "model": self._model} if isinstance(message, dict) else {}
        self._usage = messages_usage.merge(self._usage, shown.get("usage"))
        counted = messages_usage.to_chat(self._usage).get("prompt_tokens")
        usage = {"prompt_tokens": counted} if counted else None  # the output has not been counted yet
        if self._has_start:
            return Produced(b"", is_opening=True, usage=usage)
        self._has_start = True
        return Produced(orjson.dumps({**fields, "message": shown}), is_opening=True, usage=usage)

    def _message_delta(self, fields: dict[str, Any], encoded: bytes) -> Produced:
        delta = fields.get("delta")
        reason = finish_reason_of(delta.get("stop_reason")) if isinstance(delta, dict) else None
        self._usage = messages_usage.merge(self._usage, fields.get("usage"))
        return Produced(encoded, finish_reason=reason, usage=messages_usage.to_chat(self._usage) or None)


def error_of(event: dict[str, Any]) -> EngineError:
    """Return the exception for an `error` event."""
    found = event.get("error")
    error = found if isinstance(found, dict) else {}
    kind, message = error.get("type"), error.get("message")
    status = ERROR_STATUSES.get(kind, 500) if isinstance(kind, str) else 500
    return EngineError(
        message if isinstance(message, str) and message else _NO_MESSAGE,
        status,
        type=kind if isinstance(kind, str) else None,
    )


def _starts_content(block: object) -> bool:
    """Return whether a block has content as it begins: one of another kind than text and thinking always has."""
    if not isinstance(block, dict):
        return False
    return block.get("type") not in _START_TEXTS or _has_any(block, _START_TEXTS)


def _has_any(fields: object, names: tuple[str, ...]) -> bool:
    return isinstance(fields, dict) and any(fields.get(name) for name in names)
