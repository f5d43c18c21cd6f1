"""Parse the response of a server of Anthropic's Messages API into events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import orjson

from lifecycle.formats import message_object
from lifecycle.formats.messages import ERROR_STATUSES
from lifecycle.types import Event
from worker.engines.answer_parser import AnswerParser

_TEXTS = {"text": "text_delta", "thinking": "thinking_delta"}


class MessagesParser(AnswerParser):
    """Yield the objects that are the data of the upstream's events, as they are.

    The answer is complete with `message_stop`. A response that is one message instead of a stream becomes the events of
    one.
    """

    __slots__ = ()

    not_an_event: ClassVar = (
        "the upstream sent an event that is none of the Messages API; check that its API is compatible with Anthropic's"
    )
    not_an_answer: ClassVar = (
        "the upstream answered without a stream and without a message; "
        "check that its API is compatible with Anthropic's"
    )

    def _event(self, payload: dict[str, Any]) -> Event | None:
        kind = payload["type"]
        if not isinstance(kind, str):
            raise TypeError("the type is no string")
        if kind == "message_stop":
            self.finished = self.ended = True
        return payload

    def _is_opening(self, event: Event) -> bool:
        return message_object.is_opening(event)

    def _error(self, payload: dict[str, Any], name: bytes) -> dict[str, Any] | None:
        found = super()._error(payload, name)
        error = found.get("error") if found else None
        if not isinstance(error, dict):
            return found
        status = ERROR_STATUSES.get(str(error.get("type")))
        return {"error": {**error, "status": status}} if status else found

    def _whole_event(self, answer: dict[str, Any]) -> Iterator[Event]:
        if answer["type"] != "message":
            raise TypeError("no message")
        blocks, reasons = answer["content"], {name: answer.get(name) for name in ("stop_reason", "stop_sequence")}
        self.finished = True
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        yield {"type": "message_start", "message": answer | empty}
        for index, block in enumerate(blocks):
            yield from _block_events(index, block)
        yield {"type": "message_delta", "delta": reasons, "usage": answer.get("usage") or {"output_tokens": 0}}
        yield {"type": "message_stop"}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[Event]:
    """Yield the events of one content block of a message."""
    kind, begun, deltas = block["type"], dict(block), []
    if kind in _TEXTS:
        begun[kind] = ""
        deltas.append({"type": _TEXTS[kind], kind: block.get(kind) or ""})
    elif "input" in block:
        begun["input"] = {}
        deltas.append({"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()})
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
