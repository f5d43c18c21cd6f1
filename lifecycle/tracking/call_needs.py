"""Tell what a call needs of an engine: parameters that not every engine takes, and what no translation can express.

A body may be malformed here: the library does not check it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lifecycle.store.worker_roster import NATIVE_ONLY
from lifecycle.translation import messages_support, responses_support
from lifecycle.types import Endpoint


def needs_of(endpoint: str, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a call to the endpoint needs, as `LivingWorker.missing` takes it.

    The names of gated parameters are those of chat completions, which `accepts` knows.
    """
    find = _NEEDS.get(endpoint)
    return find(body) if find is not None else ()


def gated_among(gated: Mapping[str, Callable[[Any], bool]], body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gated parameters of which the body asks for something."""
    if gated.keys().isdisjoint(body):  # as for most calls
        return ()
    return tuple(name for name, value in body.items() if name in gated and value is not None and gated[name](value))


def _needs_of_response(body: Mapping[str, Any]) -> tuple[str, ...]:
    needs = {*gated_among(_RESPONSES, body), *(NATIVE_ONLY + path for path in responses_support.untranslatable(body))}
    tools, text = body.get("tools"), body.get("text")
    if any(responses_support.type_of(tool) == "function" for tool in (tools if isinstance(tools, list) else ())):
        needs.add("tools")
    chosen = text.get("format") if isinstance(text, dict) else None
    if chosen and responses_support.type_of(chosen) != "text":
        needs.add("response_format")
    return tuple(sorted(needs))


def _needs_of_message(body: Mapping[str, Any]) -> tuple[str, ...]:
    tools, config = body.get("tools"), body.get("output_config")
    format_ = config.get("format") if isinstance(config, dict) else None
    asked = {
        "tools": any(map(messages_support.is_own_tool, tools if isinstance(tools, list) else ())),
        "tool_choice": responses_support.type_of(body.get("tool_choice")) in ("any", "tool"),
        "response_format": bool(format_ or body.get("output_format")),
    }
    native = [NATIVE_ONLY + name for name in messages_support.untranslatable(body)]
    return tuple([name for name, is_asked in asked.items() if is_asked] + native)


def _above(limit: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (int, float)) and value > limit


def _is_chosen(value: Any) -> bool:
    return value not in ("none", "auto")


def _is_no_one_text(prompt: Any) -> bool:
    return isinstance(prompt, list) and not (len(prompt) == 1 and isinstance(prompt[0], str))


_RESPONSES: dict[str, Callable[[Any], bool]] = {"top_logprobs": _above(0), "tool_choice": _is_chosen}
_CHAT: dict[str, Callable[[Any], bool]] = {
    "n": _above(1),
    "logprobs": bool,
    "top_logprobs": _above(0),
    "tools": bool,
    "functions": bool,
    "tool_choice": _is_chosen,
    "function_call": _is_chosen,
    "modalities": lambda kinds: isinstance(kinds, list) and "audio" in kinds,
    "audio": lambda _: True,
    "prediction": lambda _: True,
    "web_search_options": lambda _: True,
    "response_format": lambda value: responses_support.type_of(value) != "text",
}
_TEXT: dict[str, Callable[[Any], bool]] = {
    "n": _above(1),
    "prompt": _is_no_one_text,
    "logprobs": lambda value: value is not False,  # which clients send for "no logprobs"
    "best_of": _above(1),
    "echo": bool,
    "suffix": bool,
}
_NEEDS: dict[str, Callable[[Mapping[str, Any]], tuple[str, ...]]] = {
    Endpoint.CHAT_COMPLETIONS: partial(gated_among, _CHAT),
    Endpoint.COMPLETIONS: partial(gated_among, _TEXT),
    Endpoint.RESPONSES: _needs_of_response,
    Endpoint.MESSAGES: _needs_of_message,
}
