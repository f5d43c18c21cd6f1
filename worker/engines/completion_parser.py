"""Parse the response of an OpenAI-compatible server to a completion call into events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from lifecycle.errors import EngineError
from lifecycle.execution.context import EngineContext
from lifecycle.formats.chunks import ENVELOPE, repeated_fields
from lifecycle.types import Event
from worker.engines.answer_parser import MAX_OUTPUT_BYTES, AnswerParser
from worker.engines.upstream_errors import Scrub, stream_error

_PLAIN_CHUNK = ENVELOPE | {"choices"}
_PLAIN_CHOICE = frozenset({"index", "delta", "text", "finish_reason"})
NOT_A_CHUNK = "the upstream sent an event that is not a completion chunk; check that its API is OpenAI-compatible"
NO_CHOICES = "the upstream answered without a stream and without choices; check that its API is OpenAI-compatible"


class CompletionParser(AnswerParser):
    """Turn the bytes of one response into events of chat or text completions.

    A chunk that holds only text of choice 0 becomes a `str`, every other one a `dict` without its envelope and without
    fields that are null. Once an event has had a `system_fingerprint` or a `service_tier`, a chunk with the same values
    is a `str` too, because the frontend repeats them. A response that is one JSON object instead of a stream becomes
    one event. The finish reason of choice 0 and the usage are written to the engine's context as they come.

    The answer is complete when every choice has its finish reason, or `[DONE]` came.
    """

    __slots__ = ("_choices", "_context", "_finished_choices", "_repeated", "_seen_choices")

    not_an_event: ClassVar = NOT_A_CHUNK
    not_an_answer: ClassVar = NO_CHOICES

    def __init__(
        self,
        context: EngineContext,
        choices: int = 1,
        scrub: Scrub = str,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        """Start at the beginning of a response to a call that asks for so many `choices`.

        `context` receives the finish reason and the usage.
        """
        super().__init__(scrub, max_output_bytes)
        self._context = context
        self._choices = choices
        self._repeated: dict[str, Any] = {}  # fields that the frontend adds to a text
        self._seen_choices: set[int] = set()
        self._finished_choices: set[int] = set()

    def _is_complete(self) -> bool:
        """Return whether every choice that came has finished."""
        return bool(self._seen_choices) and self._seen_choices <= self._finished_choices

    def _whole_event(self, answer: dict[str, Any]) -> Iterator[Event]:
        if not answer.get("choices"):
            raise stream_error(answer, self._scrub, started=False) if "detail" in answer else EngineError(NO_CHOICES)
        event = self._event({**answer, "choices": [_as_delta(choice) for choice in answer["choices"]]})
        self.finished = True
        if event is not None:
            yield event

    def _event(self, payload: dict[str, Any]) -> Event | None:
        """Return the event of one chunk, or None when it has only a finish reason or a usage.

        Raise AttributeError, KeyError or TypeError for a payload that is not a chunk.
        """
        usage = payload.pop("usage", None)
        if isinstance(usage, dict):
            self._context.usage = usage
            if type(usage.get("prompt_tokens")) is int:
                self._context.input_tokens = usage["prompt_tokens"]
        choices = payload.get("choices") or []
        finish_reason = self._note_choices(choices)
        fields = {name: value for name, value in payload.items() if value is not None and name not in _PLAIN_CHUNK}
        plain = fields == self._repeated
        if plain and not choices:
            return None
        if plain and len(choices) == 1 and not (finish_reason and self._choices > 1):
            text = _only_text(choices[0])
            if finish_reason and not text and (text is not None or _is_bare(choices[0])):
                return None  # only the finish reason, which the context has
            if text is not None:
                return text
        if not choices and isinstance(usage, dict):
            return {"choices": [], "usage": None, **fields}
        self._repeated = self._repeated | repeated_fields(fields)
        return {"choices": choices, **fields}

    def _note_choices(self, choices: list[dict[str, Any]]) -> bool:
        """Note which choices have come and which have finished. Return whether one of these finishes."""
        found = False
        for choice in choices:
            index = choice.get("index") or 0
            if index not in self._seen_choices:
                self._seen_choices.add(index)
            if reason := choice.get("finish_reason"):
                found = True
                self._finished_choices.add(index)
                if index == 0 and not self._context.finish_reason:
                    self._context.finish_reason = str(reason)
        if found and len(self._finished_choices) >= self._choices and self._seen_choices <= self._finished_choices:
            self.finished = True
        return found


def _has_only(fields: dict[str, Any], names: frozenset[str]) -> bool:
    """Return whether all other fields than `names` are null."""
    return not [name for name, value in fields.items() if value is not None and name not in names]


def _only_text(choice: dict[str, Any]) -> str | None:
    """Return the text of a choice that holds nothing but text of choice 0, otherwise None.

    The role "assistant" beside a text is left out: the first event of an answer gets it anyway.
    """
    if choice.get("index") or not _has_only(choice, _PLAIN_CHOICE):
        return None
    delta = choice.get("delta")
    if delta is None:
        text = choice.get("text")
        return text if isinstance(text, str) else None
    text = delta.get("content")
    if not isinstance(text, str):
        return None
    if len(delta) == 1:
        return text
    for name, value in delta.items():
        if value is not None and name != "content" and not (name == "role" and value == "assistant" and text):
            return None
    return text


def _is_bare(choice: dict[str, Any]) -> bool:
    """Return whether a choice of index 0 has nothing but a finish reason."""
    if choice.get("index") or not _has_only(choice, _PLAIN_CHOICE):
        return False
    return not any(value is not None for value in (choice.get("delta") or {}).values())


def _as_delta(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice of a unary answer in the form of a stream's choice."""
    message = choice.get("message")
    if message is None:
        return choice
    delta = {name: value for name, value in message.items() if value is not None}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
    return {name: value for name, value in choice.items() if name != "message"} | {"delta": delta}
