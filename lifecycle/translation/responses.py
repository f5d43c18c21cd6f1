"""Serve the Responses API by chat completions: translate the call, and the events of its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lifecycle.formats.origin import Origin
from lifecycle.formats.response_object import new_response
from lifecycle.translation.responses_answer import Item, ResponsesAnswer
from lifecycle.translation.responses_events import ResponsesEvents
from lifecycle.translation.responses_request import to_chat_body
from lifecycle.translation.responses_resumed import to_chat_events
from lifecycle.types import Event

_REASONING = ("reasoning_content", "reasoning")  # llama.cpp, SGLang and others; vLLM


class ResponsesTranslation:
    """Translate one attempt. An answer of an earlier attempt is continued where it broke off."""

    def __init__(self, origin: Origin) -> None:
        self.request = to_chat_body(origin.body)
        self.emitted: Sequence[Event] = to_chat_events(origin.emitted)
        self._answer = ResponsesAnswer()
        for event in origin.emitted:
            if isinstance(event, dict):
                self._answer.apply(event)
        response = new_response(origin.request_id, origin.created_at, origin.body, "in_progress")
        self._events = ResponsesEvents(response, self._answer)
        found = [item for item in self._answer.items if item.data["type"] == "function_call"]
        self._calls: dict[int, Item] = dict(enumerate(found))  # by their index in chat
        self._unnamed: dict[int, _Unnamed] = {}

    def begin(self) -> Iterator[dict[str, Any]]:
        """Yield the events that open the answer."""
        return self._events.openings()

    def add(self, event: Event) -> Iterator[dict[str, Any]]:
        """Yield the events for a text, or for choice 0 of a chunk: the Responses API has no other choices."""
        if self._answer.is_complete:
            return
        if isinstance(event, str):
            if event:
                yield from self._events.text("output_text", event)
            return
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict) and not choice.get("index") and isinstance(choice.get("delta"), dict):
                yield from self._delta(choice["delta"], choice.get("logprobs"))

    def end(self, finish_reason: str, usage: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        """Yield the events that complete the answer."""
        for index in sorted(self._unnamed):
            yield from self._begin_call(index, "")
        yield from self._events.ending(finish_reason, usage)

    def _delta(self, delta: Mapping[str, Any], logprobs: object) -> Iterator[dict[str, Any]]:
        reasoning = next((text for name in _REASONING if (text := _text(delta.get(name)))), "")
        if reasoning:
            yield from self._events.text("reasoning_text", reasoning)
        content = _text(delta.get("content"))
        # Without content, log probabilities are those of reasoning or of a call, which have no place here. An empty
        # content has those of a token that completes no character.
        found = [] if reasoning or delta.get("content") is None else list(_logprobs(logprobs))
        if content or found:
            yield from self._events.text("output_text", content, found)
        refusal = _text(delta.get("refusal"))
        if refusal:
            yield from self._events.text("refusal", refusal)
        calls = delta.get("tool_calls")
        for number, call in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(call, dict):
                index = call.get("index")
                yield from self._call(index if type(index) is int else number, call)

    def _call(self, index: int, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the events for a piece of a function call. Until its name has come, its pieces are kept."""
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = _text(function.get("name")), _text(function.get("arguments"))
        if index not in self._calls:
            unnamed = self._unnamed.setdefault(index, _Unnamed())
            unnamed.call_id = unnamed.call_id or _text(call.get("id"))
            unnamed.pieces.append(arguments)
            if name:
                yield from self._begin_call(index, name)
        elif arguments:
            yield from self._events.arguments(self._calls[index], arguments)

    def _begin_call(self, index: int, name: str) -> Iterator[dict[str, Any]]:
        unnamed = self._unnamed.pop(index)
        yield from self._events.call(name, unnamed.call_id)
        item = self._calls[index] = self._answer.items[-1]
        arguments = "".join(unnamed.pieces)
        if arguments:
            yield from self._events.arguments(item, arguments)


class _Unnamed:
    """Hold what has come of a function call before its name."""

    def __init__(self) -> None:
        self.call_id = ""
        self.pieces: list[str] = []


def _text(value: object) -> str:
    """Return a text, or the texts of a list of parts, as some servers send them; "" for anything else."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def _logprobs(logprobs: object) -> Iterator[dict[str, Any]]:
    """Yield the log probabilities of a choice's tokens, without a server's own fields."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    for token in content if isinstance(content, list) else []:
        if isinstance(token, dict):
            top = token.get("top_logprobs")
            others = [_token(other) for other in top if isinstance(other, dict)] if isinstance(top, list) else []
            yield {**_token(token), "top_logprobs": others}


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    text, data = _text(token.get("token")), token.get("bytes")
    data = data if isinstance(data, list) else list(text.encode(errors="surrogatepass"))
    return {"token": text, "bytes": data, "logprob": token.get("logprob")}
