"""Fold the events of a request into the one body of a unary response.

Strings concatenate, but `role`, `id`, `type` and `name` keep their first value. Objects merge. Lists extend, but their
items that have an `index` merge by it. A finish reason, and every field beside the choices, keeps its last value that
is not null. Any other value is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from typing import Any

from frontend.endpoints.completions.choices import choices_of, index_of
from lifecycle.encoding import encodable
from lifecycle.tokens.items import End
from lifecycle.types import Endpoint, Event, reported_tokens

_KEEP_FIRST = frozenset({"role", "id", "type", "name"})
_APART = frozenset({"id", "object", "created", "model", "choices", "usage"})  # fields that are not the engine's
_OBJECTS = {Endpoint.CHAT_COMPLETIONS: "chat.completion", Endpoint.COMPLETIONS: "text_completion"}


_PIECES = 1024  # kept at most: a short piece takes twenty times the memory of its characters


class _Text:
    """Collect the pieces of a string, in about as much memory as their characters take."""

    __slots__ = ("_joined", "_pieces")

    def __init__(self, piece: str) -> None:
        self._pieces = [piece]
        self._joined: StringIO | None = None

    def add(self, piece: str) -> None:
        """Append a piece."""
        self._pieces.append(piece)
        if len(self._pieces) >= _PIECES:
            self._joined = self._joined or StringIO()
            self._joined.write("".join(self._pieces))
            self._pieces.clear()

    def __str__(self) -> str:
        return (self._joined.getvalue() if self._joined else "") + "".join(self._pieces)


class CompletionFold:
    """Fold the events of one request, in order."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._texts: list[str] = []  # of choice 0, not merged yet
        self._choices: dict[int, dict[str, Any]] = {}
        self._fields: dict[str, Any] = {}  # beside the choices

    def add(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        for event in events:
            if isinstance(event, str):
                self._texts.append(event)
            else:
                self._merge_texts()
                self._merge_chunk(event)
        if len(self._texts) >= _PIECES:
            self._merge_texts()

    def body(self, request_id: str, model: str, created: int, end: End) -> dict[str, Any]:
        """Return the body of the response. `end` is that of a completed request."""
        self._merge_texts()
        if not self._choices:
            self._choices[0] = {}
        finish_reason = end.finish_reason or "stop"
        choices = [self._choice(index, self._choices[index], finish_reason) for index in sorted(self._choices)]
        return {
            "id": request_id,
            "object": _OBJECTS[self._endpoint],
            "created": created,
            "model": model,
            "choices": choices,
            **self._fields,
            "usage": usage_of(end),
        }

    def _merge_texts(self) -> None:
        if not self._texts:
            return
        text = encodable("".join(self._texts))
        self._texts.clear()
        piece = {"delta": {"content": text}} if self._endpoint is Endpoint.CHAT_COMPLETIONS else {"text": text}
        _merge(self._choices.setdefault(0, {}), piece)

    def _merge_chunk(self, event: dict[str, Any]) -> None:
        for choice in choices_of(event):
            into = self._choices.setdefault(index_of(choice), {})
            finish_reason = choice.get("finish_reason")
            if finish_reason is not None:
                into["finish_reason"] = finish_reason
            _merge(into, {name: choice[name] for name in choice if name not in ("index", "finish_reason")})
        for name, value in event.items():
            if name not in _APART and (value is not None or name not in self._fields):
                self._fields[name] = value

    def _choice(self, index: int, folded: dict[str, Any], finish_reason: str) -> dict[str, Any]:
        rest = {name: _plain(value) for name, value in folded.items() if name not in ("delta", "text")}
        answer: dict[str, Any]
        if self._endpoint is Endpoint.CHAT_COMPLETIONS:
            delta = folded.get("delta")
            answer = {"message": _message(_plain(delta) if isinstance(delta, dict) else {})}
        else:
            answer = {"text": _plain(folded.get("text")) or ""}
        return {"index": index, **answer, "logprobs": None, "finish_reason": finish_reason} | rest


def usage_of(end: End) -> dict[str, Any]:
    """Return the usage that the engine reported, completed: without a report the output is counted by its events."""
    usage = end.usage or {}
    prompt = reported_tokens(usage, "prompt_tokens")
    if prompt is None:
        prompt = end.input_tokens or 0
    total = reported_tokens(usage, "total_tokens")
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": end.output_tokens,
        "total_tokens": prompt + end.output_tokens if total is None else total,
    }
    return counts | {name: value for name, value in usage.items() if name not in counts}


def _message(delta: dict[str, Any]) -> dict[str, Any]:
    """Return the message that the deltas make up. Beside tool calls, reasoning or a refusal its content may be null."""
    for call in delta.get("tool_calls") or ():
        if isinstance(call, dict):
            call.pop("index", None)
    answered = any(value for name, value in delta.items() if name not in ("role", "content"))
    content = delta.get("content") or (None if answered else "")
    message = {"role": delta.get("role") or "assistant", "content": content, "refusal": None}
    return message | {name: value for name, value in delta.items() if name not in ("role", "content")}


def _merge(into: dict[str, Any], piece: dict[str, Any]) -> None:
    """Merge a piece into what came before it."""
    for name, value in piece.items():
        before = into.get(name)
        if value is None:
            into.setdefault(name, None)
        elif before is None or before == "":
            into[name] = _begin(name, value)
        elif name in _KEEP_FIRST:
            continue
        elif isinstance(before, _Text) and isinstance(value, str):
            before.add(value)
        elif isinstance(before, dict) and isinstance(value, dict):
            _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            _extend(before, value)
        elif name == "content" and (isinstance(before, list) or isinstance(value, list)):
            into[name] = _extend(_parts(before), _parts(value))
        else:
            into[name] = _begin(name, value)


def _begin(name: str, value: Any) -> Any:
    """Return a copy of a first value that further values can be merged into."""
    if isinstance(value, str):
        return value if name in _KEEP_FIRST else _Text(value)
    if isinstance(value, dict):
        begun: dict[str, Any] = {}
        _merge(begun, value)
        return begun
    return _extend([], value) if isinstance(value, list) else value


def _extend(into: list[Any], items: list[Any]) -> list[Any]:
    """Append the items, but merge one that has the `index` of an earlier one. Return the list."""
    for item in items:
        same = _find(into, item.get("index")) if isinstance(item, dict) else None
        if same is not None:
            _merge(same, item)
        else:
            into.append(_begin("", item) if isinstance(item, (dict, list)) else item)
    return into


def _find(items: list[Any], index: Any) -> dict[str, Any] | None:
    """Return the item with this index."""
    if type(index) is int:
        for item in reversed(items):
            if isinstance(item, dict) and item.get("index") == index:
                return item
    return None


def _parts(content: Any) -> list[Any]:
    """Return a message's content as a list of parts: some engines send both parts and plain text."""
    if isinstance(content, list):
        return content
    text = _plain(content)
    return [{"type": "text", "text": text}] if text else []


def _plain(value: Any) -> Any:
    """Return the folded value as JSON."""
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
