"""Fold the events of the Messages API into the one message of a unary response."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from typing import Any

from frontend.endpoints.completions.fold import usage_of
from frontend.endpoints.messages.partial_json import parse_partial
from lifecycle.encoding import encodable_value
from lifecycle.formats.message_object import new_message, stop_reason_of
from lifecycle.formats.messages_usage import from_chat, merge
from lifecycle.tokens.items import End
from lifecycle.types import Event

_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_FROM_START = ("text", "thinking")


class _Block:
    """Collect one content block, in about as much memory as its characters take."""

    __slots__ = ("_fields", "_text")

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = dict(fields)
        self._text = StringIO()
        for name in _FROM_START:
            if isinstance(fields.get(name), str):
                self._text.write(fields[name])

    def add(self, delta: dict[str, Any]) -> None:
        """Take a delta. One of a kind that is not known here changes nothing."""
        kind = str(delta.get("type"))
        name = _TEXTS.get(kind)
        if name is not None:
            self._text.write(str(delta.get(name) or ""))
        elif kind == "signature_delta":
            self._fields["signature"] = delta.get("signature")
        elif kind == "citations_delta":
            self._fields["citations"] = [*(self._fields.get("citations") or ()), delta.get("citation")]

    def finished(self) -> dict[str, Any]:
        """Return the block. The input of a tool is parsed, as far as it goes."""
        text, kind = self._text.getvalue(), self._fields.get("type")
        if kind in _FROM_START:
            return {**self._fields, kind: text}
        return {**self._fields, "input": parse_partial(text)} if text else self._fields


class MessageFold:
    """Fold the events of one request, in order."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, Any] = {}
        self._ended = False  # message_delta has come

    def add(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        for event in events:
            if isinstance(event, dict):
                self._add(event)

    def _add(self, event: dict[str, Any]) -> None:
        kind, index = event.get("type"), event.get("index", 0)
        if kind == "content_block_delta":
            block, delta = self._blocks.get(index), event.get("delta")
            if block is not None and isinstance(delta, dict):
                block.add(delta)
        elif kind == "content_block_start":
            self._blocks[index] = _Block(_object(event.get("content_block")))
        elif kind == "message_start":
            self._message = _object(event.get("message"))
            self._usage = merge(self._usage, self._message.get("usage"))
        elif kind == "message_delta":
            self._ended = True
            self._message = {**self._message, **_object(event.get("delta"))}
            self._usage = merge(self._usage, event.get("usage"))

    def body(self, request_id: str, model: str, created: int, end: End) -> dict[str, Any]:
        """Return the message. `end` is that of a completed request; an engine that was stopped may have sent no end."""
        usage = self._usage if self._ended else merge(self._usage, from_chat(usage_of(end), end.last))
        message = new_message(request_id, model, usage) | self._message
        if not self._ended:
            message["stop_reason"] = stop_reason_of(end.finish_reason)
        content = [block.finished() for _, block in sorted(self._blocks.items())]
        own = {"id": request_id, "model": model, "content": content, "usage": usage}
        found: dict[str, Any] = encodable_value(message | own)
        return found


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
