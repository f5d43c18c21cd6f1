"""Serve the Messages API through chat completions: translate the call, and the events of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lifecycle.formats.message_object import new_message, stop_reason_of
from lifecycle.formats.messages_usage import from_chat
from lifecycle.formats.origin import Origin
from lifecycle.translation.messages_request import chat_request
from lifecycle.types import Event

_REASONING = ("reasoning_content", "reasoning")  # the names that servers use for it


class _Block(NamedTuple):
    """A content block of the answer. The first one has the number 0."""

    number: int
    kind: str


class MessagesTranslation:
    """Translate one attempt. A later attempt of a resumable engine continues the block that is open."""

    def __init__(self, origin: Origin) -> None:
        self.request = chat_request(origin.body)
        self._origin = origin
        self._stop_sequences = origin.body.get("stop_sequences") or ()
        self._open: _Block | None = None
        self._blocks = 0  # begun
        self._calls: dict[int, _Block] = {}
        self._pieces = 0  # of the answer, which count as tokens if the engine does not count them
        self._stop_sequence: str | None = None
        self._completed: set[str] = set()  # the events of the end that earlier attempts have left
        resumed: list[Event] = []
        for event in origin.emitted:
            if isinstance(event, dict):
                resumed += self._resume(event)
        self.emitted: Sequence[Event] = resumed

    def begin(self) -> Iterator[Event]:
        """Yield `message_start`."""
        body = self._origin.body
        yield {
            "type": "message_start",
            "message": new_message(self._origin.request_id, body["model"], {"input_tokens": 0, "output_tokens": 0}),
        }

    def add(self, event: Event) -> Iterator[Event]:
        """Yield the events for a text, or for a chunk of chat; only its choice 0 is a part of the answer."""
        if isinstance(event, str):
            yield from self._content(event)
            return
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not choice.get("index"):
                yield from self._choice(choice)

    def end(self, finish_reason: str, usage: dict[str, Any] | None) -> Iterator[Event]:
        """Yield the events that complete the answer. `usage` has chat's names."""
        yield from self._close()
        reason = stop_reason_of(finish_reason)
        if reason == "end_turn":
            # Some servers answer a call of a named tool with "stop".
            reason = "tool_use" if self._calls else "stop_sequence" if self._stop_sequence else reason
        delta = {"stop_reason": reason, "stop_sequence": self._stop_sequence}
        for event in (
            {"type": "message_delta", "delta": delta, "usage": from_chat(usage, self._pieces)},
            {"type": "message_stop"},
        ):
            if event["type"] not in self._completed:
                yield event

    def _choice(self, choice: dict[str, Any]) -> Iterator[Event]:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            thought = next((delta[name] for name in _REASONING if delta.get(name)), None)
            if isinstance(thought, str):
                yield from self._text("thinking", thought)
            for name in ("content", "refusal"):
                yield from self._content(delta.get(name))
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict):
                    yield from self._call(call)
        stopped_by = choice.get("stop_reason")  # of vLLM and SGLang: the sequence, or the id of a token
        if isinstance(stopped_by, str) and stopped_by in self._stop_sequences:
            self._stop_sequence = stopped_by

    def _content(self, content: object) -> Iterator[Event]:
        if isinstance(content, str) and content:
            yield from self._text("text", content)
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    yield from self._text("text", part["text"])

    def _text(self, kind: str, text: str) -> Iterator[Event]:
        """Yield a piece of text or of reasoning, in the open block if that is of this kind."""
        if self._open is None or self._open.kind != kind:
            signature = {"signature": ""} if kind == "thinking" else {}
            yield from self._begin(kind, None, {"type": kind, kind: "", **signature})
        yield self._delta(self._open, {"type": f"{kind}_delta", kind: text})

    def _call(self, call: dict[str, Any]) -> Iterator[Event]:
        """Yield the events for a piece of a tool call. The first one of each call has its name."""
        number = call.get("index")
        number = number if type(number) is int else len(self._calls)
        given = call.get("function")
        function = given if isinstance(given, dict) else {}
        if number not in self._calls:
            own_id = f"toolu_{self._origin.request_id.replace('.', '_')}_{number}"
            tool = {"type": "tool_use", "id": call.get("id") or own_id, "name": function.get("name") or ""}
            yield from self._begin("tool_use", number, {**tool, "input": {}})
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            yield self._delta(self._calls[number], {"type": "input_json_delta", "partial_json": arguments})

    def _begin(self, kind: str, call: int | None, content_block: dict[str, Any]) -> Iterator[Event]:
        yield from self._close()
        yield {"type": "content_block_start", "index": self._blocks, "content_block": content_block}
        self._note_begin(kind, call)

    def _close(self) -> Iterator[Event]:
        if self._open is not None:
            yield {"type": "content_block_stop", "index": self._open.number}
            self._open = None

    def _delta(self, block: _Block | None, delta: dict[str, Any]) -> Event:
        assert block is not None
        self._pieces += 1
        return {"type": "content_block_delta", "index": block.number, "delta": delta}

    def _note_begin(self, kind: str, call: int | None) -> None:
        self._open = _Block(self._blocks, kind)
        self._blocks += 1
        if call is not None:
            self._calls[call] = self._open

    def _resume(self, event: dict[str, Any]) -> Iterator[Event]:
        """Take an event of an earlier attempt, and yield the event of chat that it came from, if any."""
        kind = event.get("type")
        if kind == "content_block_start":
            block = event["content_block"]
            call = len(self._calls) if block["type"] == "tool_use" else None
            self._note_begin(block["type"], call)
            if call is not None:
                function = {"name": block["name"], "arguments": ""}
                yield _chunk({"tool_calls": [{"index": call, "id": block["id"], "function": function}]})
        elif kind == "content_block_stop":
            self._open = None
        elif kind == "content_block_delta":
            self._pieces += 1
            yield from self._resumed_delta(event["index"], event["delta"])
        elif kind in ("message_delta", "message_stop"):
            self._completed.add(kind)

    def _resumed_delta(self, index: int, delta: dict[str, Any]) -> Iterator[Event]:
        if delta["type"] == "text_delta":
            yield delta["text"]
        elif delta["type"] == "thinking_delta":
            yield _chunk({"reasoning_content": delta["thinking"]})
        elif delta["type"] == "input_json_delta":
            call = next(number for number, block in self._calls.items() if block.number == index)
            yield _chunk({"tool_calls": [{"index": call, "function": {"arguments": delta["partial_json"]}}]})


def _chunk(delta: dict[str, Any]) -> Event:
    return {"choices": [{"index": 0, "delta": delta}]}
