"""Answers that are the same in every format: of chat completions, of responses, and of messages.

The name of the model says which answer it gives. With the prefix `chat_` it is the same one, of another upstream.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CHAT_PREFIX = "chat_"
INPUT_TOKENS, OUTPUT_TOKENS = 12, 7
_PIECE_CHARS = 6

PARIS = ("weather", {"city": "Paris", "days": 2})
UTC = ("clock", {"zone": "UTC"})


@dataclass(frozen=True)
class Answer:
    """Hold what an engine says: a reasoning, a text, and calls of tools, each with its name and arguments."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


ANSWERS = {
    "text": Answer("The sky is blue, and the sea is “deep”."),
    "reasoning": Answer("It is blue.", reasoning="Light is scattered by the air."),
    "structured": Answer(json.dumps(PARIS[1])),
    "tool": Answer(calls=(PARIS,)),
    "parallel_tools": Answer("I look.", calls=(PARIS, UTC)),
    "agent": Answer("It is sunny in Paris."),
    "parallel_agent": Answer("It is sunny in Paris, and noon."),
    "codex": Answer("It is 42."),
    "broken": Answer("The sky is blue, and the sea is deep, too."),
    "endless": Answer("The sky is blue, and the sea is deep, too."),
}
_CALLED_FIRST = {
    "agent": Answer(calls=(PARIS,)),
    "parallel_agent": Answer(calls=(PARIS, UTC)),
    "codex": Answer("I compute it.", calls=(("exec_command", {"cmd": "echo $((6 * 7)) > answer; cat answer"}),)),
}
FAILING = ("context_overflow", "rate_limit")
NAMES = (*ANSWERS, *FAILING)


def name_of(model: str) -> str:
    """Return which answer a model gives."""
    return model.removeprefix(CHAT_PREFIX)


def answer_of(model: str, has_results: bool) -> Answer:
    """Return the answer of a model. An agent calls its tools before there are results of them."""
    name = name_of(model)
    return ANSWERS[name] if has_results else _CALLED_FIRST.get(name, ANSWERS[name])


def pieces(text: str) -> list[str]:
    """Return a text in pieces, as an engine yields it."""
    return [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]
